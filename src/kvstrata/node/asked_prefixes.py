"""Which prefixes of prompts the node's LMCache is known to have, and when it was last asked about each."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

# Of the prefixes that were asked about last; a key is a hash of 32 bytes.
_MOST = 65536


class AskedPrefixes:
    """Keeps when what was asked. Not for use by several threads."""

    def __init__(self, fresh_s: float, most: int = _MOST, clock: Callable[[], float] = time.monotonic) -> None:
        """Take what is older than `fresh_s` seconds for too old; keep `most`. 0 keeps nothing."""
        self._fresh_s, self._most, self._clock = fresh_s, most, clock
        self._moments: OrderedDict[Hashable, float] = OrderedDict()

    def now(self) -> float:
        """Return the moment at which something is asked."""
        return self._clock()

    def keep(self, prefix: Hashable, moment: float) -> None:
        """Remember that LMCache has a prefix, all of which was last asked about at a moment."""
        if not self._fresh_s:
            return
        self._moments[prefix] = moment
        self._moments.move_to_end(prefix)
        while len(self._moments) > self._most:
            self._moments.popitem(last=False)

    def asked_at(self, prefix: Hashable) -> float | None:
        """Return when a prefix was last asked about; None if it never was, or is not kept."""
        return self._moments.get(prefix)

    def is_fresh(self, moment: float) -> bool:
        """Whether what was asked at a moment need not be asked again."""
        return self._clock() - moment < self._fresh_s

    def forget(self) -> None:
        """Forget everything: LMCache may have lost it."""
        self._moments.clear()
