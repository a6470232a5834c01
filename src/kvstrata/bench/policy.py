"""Replay request traces through LMCache's two tiers, and count what a write policy writes, saves and loses.

The model is LMCache 0.5.6 as its storage controllers are written, with the flags that roles/lmcache gives it:

- A lookup names all whole chunks of the prompt. A hit is the contiguous prefix that L1 and L2 hold together.
- What L2 gives of a hit enters L1 and stays there like any other chunk (`--l2-prefetch-policy retain`; by default it
  would leave L1 once the engine has read it). It is not offered to L2 again.
- Every chunk after the hit is computed; those that L1 lacks enter it and are offered to the policy, once.
- L1 evicts a tenth of its chunks, least recently used first, when it is nine tenths full (`--eviction-ratio 0.1`,
  `--eviction-trigger-watermark 0.9`; by default a fifth at four fifths). A request makes all chunks of its prompt the
  youngest, its first one last of all: of one prompt, the last chunks go first.
- L2 evicts one by one, by last lookup, at its capacity. A chunk that L2 has is not written again.

Not modelled: time (requests run one after another, and eviction keeps up with them), vLLM's own prefix cache in HBM
(it saves computing; with vllm_lmcache_recheck_s of 0 LMCache looks up, loads and stores the same chunks with or without
it, else it is asked less often), more than one node.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from kvstrata.bench.workloads import Request
from kvstrata.l2.policy import AdmissionPolicy, TinyLfu, make_policy

L1_WATERMARK = 0.9
L1_EVICTED_SHARE = 0.1


class MinPosition:
    """Writes chunks from a position on, without those before it: here to show what that costs, not on the nodes."""

    name = "min_position"
    full = True

    def __init__(self, chunks: int) -> None:
        """Admit from position `chunks` on."""
        self._chunks = chunks
        self._late: set[bytes] = set()

    def looked_up(self, cids: Sequence[bytes], first: int = 0) -> None:
        """Remember the chunks that lie late enough."""
        self._late.update(cids[max(0, self._chunks - first) :])

    def admit(self, cid: bytes) -> bool:
        """Return whether the chunk lies late enough."""
        return cid in self._late

    def report(self) -> dict[str, object]:
        """Return nothing more than the name."""
        return {"policy": self.name}


@dataclass(frozen=True)
class Candidate:
    """One row of the table: a policy with its options."""

    label: str
    make: Callable[[int], AdmissionPolicy]
    """Called with L2's capacity in chunks."""
    against_victim: bool = False
    """Whether a full L2 takes a chunk only if it is used more often than the one it would evict for it."""


CANDIDATES = (
    Candidate("all", lambda _: make_policy("all")),
    Candidate("second_use", lambda _: make_policy("second_use")),
    Candidate("second_use, only when full", lambda _: make_policy("second_use", only_when_full=True)),
    Candidate("min_prefix 8", lambda _: make_policy("min_prefix", chunks=8)),
    Candidate("(min_position 8)", lambda _: MinPosition(8)),
    Candidate("tinylfu 2", lambda chunks: make_policy("tinylfu", min_uses=2, capacity=max(1 << 10, chunks))),
    Candidate("tinylfu 3", lambda chunks: make_policy("tinylfu", min_uses=3, capacity=max(1 << 10, chunks))),
    Candidate(
        "tinylfu 1, against victim",
        lambda chunks: make_policy("tinylfu", min_uses=1, capacity=max(1 << 10, chunks)),
        against_victim=True,
    ),
)


@dataclass
class Counts:
    """What happened to the chunks of a trace."""

    requests: int = 0
    prompt_tokens: int = 0
    l1_hits: int = 0
    l2_hits: int = 0
    offered: int = 0
    written: int = 0
    present: int = 0
    """Offered and admitted, but in L2 already."""
    evicted: int = 0
    """Evicted from L2."""


class _Lru:
    """Chunks, the least recently used first."""

    def __init__(self) -> None:
        self._lru: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, cid: bytes) -> bool:
        """Return whether the chunk is here."""
        return cid in self._lru

    def touch(self, cids: Iterable[bytes]) -> None:
        """Make the chunks that are here the youngest, in the order given."""
        for cid in cids:
            if cid in self._lru:
                self._lru.move_to_end(cid)


class L1(_Lru):
    """LMCache's DRAM tier: LRU, evicting a share of its chunks when it is nearly full."""

    def __init__(self, chunks: int) -> None:
        """Hold at most `chunks`."""
        super().__init__()
        self._limit = chunks * L1_WATERMARK

    def add(self, cid: bytes) -> None:
        """Take the chunk, then evict if that made it too full."""
        self._lru[cid] = None
        if len(self._lru) >= self._limit:
            for _ in range(max(1, int(len(self._lru) * L1_EVICTED_SHARE))):
                self._lru.popitem(last=False)


class L2(_Lru):
    """The SSD tier: LRU by last lookup."""

    def __init__(self, chunks: int) -> None:
        """Hold at most `chunks`."""
        super().__init__()
        self._chunks = chunks

    def victim(self) -> bytes | None:
        """Return the chunk that the next one would push out, or None while there is room."""
        return next(iter(self._lru)) if len(self._lru) >= self._chunks else None

    def add(self, cid: bytes) -> int:
        """Take the chunk; return how many were evicted for it."""
        self._lru[cid] = None
        evicted = len(self._lru) - self._chunks
        for _ in range(evicted):
            self._lru.popitem(last=False)
        return max(0, evicted)


def replay(
    trace: Iterable[Request], policy: AdmissionPolicy, l1_chunks: int, l2_chunks: int, against_victim: bool = False
) -> Counts:
    """Run the requests through both tiers, from empty, and return what happened."""
    l1, l2, counts = L1(l1_chunks), L2(l2_chunks), Counts()
    for request in trace:
        counts.requests += 1
        counts.prompt_tokens += request.prompt_tokens
        policy.looked_up(request.cids)
        hits = _hits(request.cids, l1, l2, counts)
        # Backwards, so that the beginning of a prompt outlives its end: without it the end is of no use.
        backwards = request.cids[::-1]
        loaded = [cid for cid in request.cids[:hits] if cid not in l1]
        l1.touch(request.cids[:hits][::-1])
        l2.touch(backwards)
        for cid in reversed(loaded):
            l1.add(cid)
        computed = [cid for cid in request.cids[hits:] if cid not in l1]
        for cid in reversed(computed):
            l1.add(cid)
        l1.touch(backwards)
        for cid in computed:
            _offer(cid, policy, l2, counts, against_victim)
        l2.touch(backwards)
    return counts


def _hits(cids: Sequence[bytes], l1: L1, l2: L2, counts: Counts) -> int:
    for position, cid in enumerate(cids):
        if cid in l1:
            counts.l1_hits += 1
        elif cid in l2:
            counts.l2_hits += 1
        else:
            return position
    return len(cids)


def _offer(cid: bytes, policy: AdmissionPolicy, l2: L2, counts: Counts, against_victim: bool) -> None:
    counts.offered += 1
    victim = l2.victim()
    policy.full = victim is not None
    if not policy.admit(cid):
        return
    if cid in l2:
        counts.present += 1
        return
    if against_victim and victim and isinstance(policy, TinyLfu) and not policy.admit_against(cid, victim):
        return
    counts.written += 1
    counts.evicted += l2.add(cid)


def drive_writes_per_day(
    written_bytes: float, requests: int, requests_per_s: float, write_amplification: float, drives_bytes: float
) -> float:
    """Return how often a day the drives are written over, at a given rate of requests.

    written_bytes / requests * requests_per_s * 86,400 s * write_amplification / drives_bytes: bytes that the policy
    lets through for each request, times what the store writes for each of them, over the capacity of all drives that
    share the writes.
    """
    return written_bytes / requests * requests_per_s * 86400 * write_amplification / drives_bytes
