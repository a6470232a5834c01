"""How often, and whether lately: approximate counting of chunk ids in bounded memory.

Chunk ids are digests, so their bytes serve as hash values as they are: row `i` looks at `h1 + i * h2` (Kirsch and
Mitzenmacher, "Less Hashing, Same Performance", 2006). Nothing here locks: the owner does.
"""

from __future__ import annotations

_ROWS = 4
COUNTER_MAX = 15
"""What a counter of 4 bits holds; it stays there."""

_BLOOM_BITS_PER_ITEM = 10
_BLOOM_HASHES = 4

# Halves both 4-bit counters of a byte, so that ageing is one pass in C over the table.
_HALVED = bytes(((byte >> 5) << 4) | ((byte & 0x0F) >> 1) for byte in range(256))


def _power_of_two(at_least: int) -> int:
    return 1 << max(3, (at_least - 1).bit_length())


def _halves(cid: bytes) -> tuple[int, int]:
    # An odd step reaches every slot of a table whose size is a power of two.
    return int.from_bytes(cid[:8], "little"), int.from_bytes(cid[8:16], "little") | 1


class CountMinSketch:
    """Counters of 4 bits in 4 rows (Cormode and Muthukrishnan, 2005), raised conservatively (Estan and Varghese, 2002).

    `estimate` is never below the true count (up to 15) since the last `halve`; collisions can only raise it.
    Memory: 2 bytes for each of `width` columns, `width` rounded up to a power of two.
    """

    def __init__(self, width: int) -> None:
        """Start with all counters at zero."""
        self._width = _power_of_two(width)
        self._table = bytearray(self._width * _ROWS // 2)

    @property
    def memory_bytes(self) -> int:
        """Size of the table."""
        return len(self._table)

    def estimate(self, cid: bytes) -> int:
        """Return how often `cid` was added, or more."""
        return min(self._get(slot) for slot in self._slots(cid))

    def add(self, cid: bytes) -> None:
        """Count `cid` once more."""
        slots = self._slots(cid)
        counts = [self._get(slot) for slot in slots]
        low = min(counts)
        if low == COUNTER_MAX:
            return
        # Only the lowest counters bound the estimate; raising the others would count for other ids alone.
        for slot, count in zip(slots, counts, strict=True):
            if count == low:
                self._table[slot >> 1] += 16 if slot & 1 else 1

    def halve(self) -> None:
        """Halve every counter, rounding down: what was frequent long ago fades."""
        self._table = self._table.translate(_HALVED)

    def _slots(self, cid: bytes) -> list[int]:
        first, step = _halves(cid)
        mask = self._width - 1
        return [row * self._width + ((first + row * step) & mask) for row in range(_ROWS)]

    def _get(self, slot: int) -> int:
        byte = self._table[slot >> 1]
        return byte >> 4 if slot & 1 else byte & 0x0F


class BloomFilter:
    """A set of chunk ids without false negatives (Bloom, 1970); at most 1.2% false positives up to `items` items.

    Memory: 10 to 20 bits for each of `items`, a power of two of bits in all.
    """

    def __init__(self, items: int) -> None:
        """Start empty."""
        self._bits = _power_of_two(items * _BLOOM_BITS_PER_ITEM)
        self._table = bytearray(self._bits // 8)
        self.added = 0
        """Ids that were new when they were added."""

    @property
    def memory_bytes(self) -> int:
        """Size of the table."""
        return len(self._table)

    def __contains__(self, cid: bytes) -> bool:
        """Return whether `cid` was added, or looks like one that was."""
        table, mask = self._table, self._bits - 1
        first, step = _halves(cid)
        for i in range(_BLOOM_HASHES):
            bit = (first + i * step) & mask
            if not table[bit >> 3] & (1 << (bit & 7)):
                return False
        return True

    def add(self, cid: bytes) -> bool:
        """Add `cid`; return whether it seemed to be there already."""
        table, mask = self._table, self._bits - 1
        first, step = _halves(cid)
        known = True
        for i in range(_BLOOM_HASHES):
            bit = (first + i * step) & mask
            if not table[bit >> 3] & (1 << (bit & 7)):
                table[bit >> 3] |= 1 << (bit & 7)
                known = False
        self.added += not known
        return known

    def clear(self) -> None:
        """Forget everything."""
        self._table = bytearray(len(self._table))
        self.added = 0


class RecentSet:
    """The last `window` to `2 * window` distinct chunk ids: two Bloom filters that take turns.

    An id that is added again is as young as a new one. Memory: that of two filters.
    """

    def __init__(self, window: int) -> None:
        """Start empty."""
        self._window = window
        self._young = BloomFilter(window)
        self._old = BloomFilter(window)

    @property
    def memory_bytes(self) -> int:
        """Size of both tables."""
        return self._young.memory_bytes + self._old.memory_bytes

    @property
    def fill(self) -> float:
        """How full the younger filter is: at 1 the older one is dropped."""
        return self._young.added / self._window

    def __contains__(self, cid: bytes) -> bool:
        """Return whether `cid` was added lately."""
        return cid in self._young or cid in self._old

    def add(self, cid: bytes) -> bool:
        """Add `cid`; return whether it was there already."""
        if self._young.add(cid):
            return True
        known = cid in self._old
        if self._young.added >= self._window:
            self._young, self._old = self._old, self._young
            self._young.clear()
        return known
