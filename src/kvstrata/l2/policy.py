"""What is written to the drives: admission of chunks, so that writes go to what is read again (docs/offload.md).

What LMCache 0.5.6 shows an L2 adapter, and what follows for a policy:

- A lookup, one for each request, names every whole chunk of the prompt, whether L1 holds it or not. So lookups count
  all uses of a chunk, and a prefix is used at least as often as what follows it. Should a later version leave out
  what L1 holds, `first` says where the rest begins. Not counted is what HBM has, but for one use in half a minute
  (kvstrata.node.hbm_first; vllm_lmcache_recheck_s of 0 counts all): what such a request stores no lookup has named.
- A chunk is offered for storing once, when it enters L1 after it was computed: not when it is used again while L1 has
  it, not when L1 evicts it, not after it was loaded from L2. A chunk refused here has its next chance only after L1
  dropped it and the engine computed it again. Every policy but `all` pays that price for each chunk that is reused.

Chunk ids are digests of 16 bytes. Policies may be called from several threads. Their memory is bounded, each node's
own, and empty after a restart.
"""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from kvstrata.l2.sketch import COUNTER_MAX, BloomFilter, CountMinSketch, RecentSet


class AdmissionPolicy(Protocol):
    """Decides which chunks are written."""

    name: str
    full: bool
    """For the owner to set: whether a new chunk pushes another one out of the store. Matters to `only_when_full`."""

    def looked_up(self, cids: Sequence[bytes], first: int = 0) -> None:
        """Learn of one lookup: the chunks of one prompt in its order, `cids[0]` at position `first` (in chunks).

        With several KV ranks or object groups LMCache names one such row after another: call this once for each.
        """

    def admit(self, cid: bytes) -> bool:
        """Return whether to write the chunk; call once for each chunk that LMCache offers."""

    def report(self) -> dict[str, object]:
        """Return counters for `report_status`."""


class _Counting:
    """A lock, and the counters that every policy has."""

    name = ""

    def __init__(self) -> None:
        self.full = True
        self.only_when_full = False
        self._lock = threading.Lock()
        self._admitted = self._refused = 0

    def looked_up(self, cids: Sequence[bytes], first: int = 0) -> None:
        """Learn of one lookup."""
        with self._lock:
            self._learn(cids, first)

    def admit(self, cid: bytes) -> bool:
        """Return whether to write the chunk."""
        with self._lock:
            # Asked even when there is room: that is how some policies learn.
            admitted = self._decide(cid) or (self.only_when_full and not self.full)
            self._admitted += admitted
            self._refused += not admitted
        return admitted

    def report(self) -> dict[str, object]:
        """Return counters for `report_status`."""
        with self._lock:
            return {"policy": self.name, "admitted": self._admitted, "refused": self._refused, **self._details()}

    def _learn(self, cids: Sequence[bytes], first: int, /) -> None:
        pass

    def _decide(self, cid: bytes, /) -> bool:
        raise NotImplementedError

    def _details(self) -> dict[str, object]:
        return {}


class WriteAll(_Counting):
    """Write every chunk."""

    name = "all"

    def _decide(self, *_: bytes) -> bool:
        return True


class SecondUse(_Counting):
    """Write a chunk from its second use on.

    Each lookup that names a chunk is one use; so is a refused offer that no lookup announced. Usually (lookup, miss,
    compute, offer) the first offer is refused and the next one admitted; already the first one is where two requests
    looked the chunk up before either had computed it.

    Remembers the last `window` to `2 * window` distinct chunks: 5 to 10 bytes for each of `window`, 8 MiB by default.
    """

    name = "second_use"

    def __init__(self, window: int = 1 << 20) -> None:
        """Remember `window` chunks (1024 to 2**26): at least what the fleet's stores hold together."""
        super().__init__()
        _in_range("window", window, 1 << 10, 1 << 26)
        self._once, self._again = RecentSet(window), RecentSet(window)

    def _learn(self, cids: Sequence[bytes], *_: int) -> None:
        for cid in cids:
            if self._once.add(cid):
                self._again.add(cid)

    def _decide(self, cid: bytes) -> bool:
        # Added at the refusal, because LMCache offers again only what was used again.
        return self._again.add(cid)

    def _details(self) -> dict[str, object]:
        memory = self._once.memory_bytes + self._again.memory_bytes
        return {"memory_bytes": memory, "window_fill": round(self._once.fill, 3)}


class MinPrefix(_Counting):
    """Write the chunks of prompts that have at least `chunks` whole chunks, their first chunks included.

    The whole prompt decides and not the chunk's position in it: a hit is a contiguous prefix, so chunks stored without
    the ones before them are read only while L1 holds those, and after a restart never.

    The longest prompt of a chunk is learnt from lookups; a chunk that is not among the last `window` looked up is
    admitted and counted as `unknown`. Memory: about 200 bytes for each of `window`, 13 MiB by default.
    """

    name = "min_prefix"

    def __init__(self, chunks: int = 8, window: int = 1 << 16) -> None:
        """Admit from `chunks` (1 to 65536) on; remember `window` chunks (1024 to 2**22)."""
        super().__init__()
        _in_range("chunks", chunks, 1, 1 << 16)
        _in_range("window", window, 1 << 10, 1 << 22)
        self._chunks, self._window = chunks, window
        self._longest: OrderedDict[bytes, int] = OrderedDict()
        self._unknown = 0

    def _learn(self, cids: Sequence[bytes], first: int) -> None:
        length = first + len(cids)
        for cid in cids:
            self._longest[cid] = max(length, self._longest.get(cid, 0))
            self._longest.move_to_end(cid)
        while len(self._longest) > self._window:
            self._longest.popitem(last=False)

    def _decide(self, cid: bytes) -> bool:
        known = cid in self._longest
        self._unknown += not known
        return not known or self._longest[cid] >= self._chunks

    def _details(self) -> dict[str, object]:
        return {"unknown": self._unknown, "remembered": len(self._longest)}


class TinyLfu(_Counting):
    """Write a chunk whose estimated number of uses in the last sample reaches `min_uses`.

    TinyLFU (Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM ToS 13(4), 2017):
    a doorkeeper (Bloom filter) takes each chunk's first use, a count-min sketch of 4-bit counters the others. After
    `8 * capacity` uses all counters are halved and the doorkeeper is emptied. Uses are lookups, and offers of chunks
    that no lookup announced.
    The paper admits everything while there is room, then only what is used more often than the victim: `min_uses=1`
    and, once the store is full, `admit_against`. A higher threshold also spares a drive that is not full yet.

    Memory: 2 to 4 bytes (sketch) and 10 to 20 (doorkeeper) for each of `capacity`; 4.5 MiB by default.
    """

    name = "tinylfu"

    def __init__(self, min_uses: int = 2, capacity: int = 1 << 18) -> None:
        """Admit from `min_uses` (1 to 15) on; `capacity` (1024 to 2**26) is what the fleet's stores hold, in chunks."""
        super().__init__()
        _in_range("min_uses", min_uses, 1, COUNTER_MAX)
        _in_range("capacity", capacity, 1 << 10, 1 << 26)
        self._min_uses = min_uses
        self._sample = 8 * capacity
        self._sketch = CountMinSketch(capacity)
        self._doorkeeper = BloomFilter(self._sample)
        self._uses = self._halvings = 0

    def admit_against(self, cid: bytes, victim: bytes) -> bool:
        """Return whether `cid` is used more often than `victim`, which a full store would evict for it."""
        with self._lock:
            return self._estimate(cid) > self._estimate(victim)

    def _learn(self, cids: Sequence[bytes], *_: int) -> None:
        for cid in cids:
            self._use(cid)

    def _decide(self, cid: bytes) -> bool:
        if self._estimate(cid) == 0:
            self._use(cid)
        return self._estimate(cid) >= self._min_uses

    def _use(self, cid: bytes) -> None:
        if self._doorkeeper.add(cid):
            self._sketch.add(cid)
        self._uses += 1
        if self._uses >= self._sample:
            self._sketch.halve()
            self._doorkeeper.clear()
            # Half of the sample's weight is still in the counters.
            self._uses //= 2
            self._halvings += 1

    def _estimate(self, cid: bytes) -> int:
        return self._sketch.estimate(cid) + (cid in self._doorkeeper)

    def _details(self) -> dict[str, object]:
        memory, fill = self._sketch.memory_bytes + self._doorkeeper.memory_bytes, round(self._uses / self._sample, 3)
        return {"memory_bytes": memory, "sample_fill": fill, "halvings": self._halvings}


_POLICIES: dict[str, type[_Counting]] = {cls.name: cls for cls in (WriteAll, SecondUse, MinPrefix, TinyLfu)}


def make_policy(name: str, only_when_full: bool = False, **options: int) -> AdmissionPolicy:
    """Return the policy `name` (`all`, `second_use`, `min_prefix`, `tinylfu`) with its options.

    With `only_when_full` it learns all the time, but everything is written while the store has room.

    Raises:
        ValueError: names the option, what was given and what is allowed.
    """
    if name not in _POLICIES:
        raise ValueError(f"policy is {name!r}; allowed: {', '.join(_POLICIES)}")
    policy = _POLICIES[name]
    allowed = list(inspect.signature(policy).parameters)
    for option in sorted(options.keys() - allowed):
        raise ValueError(f"policy {name!r} has no option {option!r}; allowed: {', '.join(allowed) or 'none'}")
    made = policy(**options)
    made.only_when_full = only_when_full
    return made


def _in_range(option: str, value: int, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{option} is {value!r}; allowed: an integer from {low} to {high}")
