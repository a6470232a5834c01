"""The certificate of a service that listens with TLS, as its clients judge it, and how long it will last."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from kvstrata.cluster import Limits
from kvstrata.verify import tls
from kvstrata.verify.check import Json, UnmetError
from kvstrata.verify.shell import Shell

TIMEOUT_S = 10


def judge(
    shell: Shell,
    host: str,
    port: int,
    client: ssl.SSLContext | None,
    limits: Limits,
    numbers: dict[str, Json],
    names: Sequence[str] = (),
) -> str:
    """What a check of a certificate sees; UnmetError for one that clients refuse, or will soon.

    Args:
        client: whom clients trust; None where they are told of nobody.
        names: what clients call the server; empty where nobody said: any of its names will do.
    """
    found = tls.look(shell, host, port, TIMEOUT_S)
    left = found.days_left(tls.now())
    until = f"{found.not_after:%Y-%m-%d %H:%M} UTC"
    numbers |= {"days_left": round(left, 2), "not_after": found.not_after.isoformat(), "protocol": found.protocol}
    seen = f"{found.subject}, {found.protocol}, until {until}"
    if left < 0:
        raise UnmetError(f"{seen}: expired {-left:.1f} days ago")
    if tls.now() < found.not_before:
        raise UnmetError(f"{seen}: not valid before {found.not_before:%Y-%m-%d %H:%M} UTC")
    if client is not None:
        for name in names or found.names[:1]:
            try:
                tls.judge(shell, host, port, TIMEOUT_S, client, name)
            except UnmetError as error:
                shown = ", ".join(found.names) or "none"
                raise UnmetError(f"{seen}, for {shown}: clients refuse it{_as(name, host)}: {error}") from error
    if left < limits.certificate_days:
        raise UnmetError(f"{seen}: expires in {left:.1f} days, {limits.certificate_days:g} should be left")
    return f"{seen} ({left:.0f} days)" + (", trusted" if client is not None else "")


def _as(name: str, host: str) -> str:
    return "" if name == host else f" as {name}"
