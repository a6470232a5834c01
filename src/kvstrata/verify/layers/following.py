"""One fault, one failure: what only repeats a failed check says so, and is not counted again."""

from __future__ import annotations

from collections.abc import Callable

from kvstrata.verify.check import Check, NotCheckedError, UnmetError


def follows_from(check: Check) -> NotCheckedError:
    """Return what to raise where a failed check explains all that could be seen here."""
    return NotCheckedError(f"follows from {check.id} on {check.host} ({check.what})")


def upon(ground: Check, probe: Callable[[], str]) -> Callable[[], str]:
    """Return the probe, not asked where the check it stands on has failed."""

    def asked() -> str:
        if ground.bad:
            raise follows_from(ground)
        return probe()

    return asked


class Once[T]:
    """Something fetched when first needed. If that fails, the check that needed it fails, and the others follow."""

    def __init__(self, fetch: Callable[[], T]) -> None:
        """Fetch nothing yet."""
        self._fetch = fetch
        self._found: T | None = None
        self._failure: str | None = None

    def __call__(self) -> T:
        """What was fetched; raises what fetching raised, the second time NotCheckedError."""
        if self._failure is not None:
            raise NotCheckedError(f"follows from a check above: {self._failure}")
        if self._found is None:
            try:
                self._found = self._fetch()
            except UnmetError as error:
                self._failure = str(error)
                raise
        return self._found

    def renew(self) -> T:
        """Fetch it again, for whoever asks from now on; raises what fetching raises."""
        self._found = self._fetch()
        return self._found
