"""The certificate of a store that listens with TLS, as its clients judge it, and how long it will last."""

from __future__ import annotations

from kvstrata.cluster import Limits, Store
from kvstrata.verify import tls
from kvstrata.verify.check import Json, UnmetError
from kvstrata.verify.layers.store.look import TIMEOUT_S
from kvstrata.verify.shell import Shell


def judge(
    shell: Shell, store: Store, port: int, authority: str | None, limits: Limits, numbers: dict[str, Json]
) -> str:
    """What `store.certificate` sees; UnmetError for one that clients refuse, or will soon.

    Args:
        authority: the text of the certificate authority's file; None where clients are told of none.
    """
    found = tls.look(shell, store.host, port, TIMEOUT_S)
    left = found.days_left(tls.now())
    until = f"{found.not_after:%Y-%m-%d %H:%M} UTC"
    numbers |= {"days_left": round(left, 2), "not_after": found.not_after.isoformat(), "protocol": found.protocol}
    seen = f"{found.subject}, {found.protocol}, until {until}"
    if left < 0:
        raise UnmetError(f"{seen}: expired {-left:.1f} days ago")
    if tls.now() < found.not_before:
        raise UnmetError(f"{seen}: not valid before {found.not_before:%Y-%m-%d %H:%M} UTC")
    if authority is not None:
        try:
            tls.judge(shell, store.host, port, TIMEOUT_S, authority)
        except UnmetError as error:
            names = ", ".join(found.names) or "none"
            raise UnmetError(f"{seen}, for {names}: clients refuse it: {error}") from error
    if left < limits.certificate_days:
        raise UnmetError(f"{seen}: expires in {left:.1f} days, {limits.certificate_days:g} should be left")
    if authority is None:
        return f"{seen} ({left:.0f} days); trusted by nobody: clients are told of no authority (lmcache_stores_ca)"
    return f"{seen} ({left:.0f} days), trusted"
