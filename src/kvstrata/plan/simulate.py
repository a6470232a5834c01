"""One replica serving conversations, step by step: continuous batching, HBM, and loads from the tiers.

How vLLM's scheduler works, in short: each step decodes one token for every running sequence and fills the rest of its
token budget with prefills in order of arrival. It decides on a step while the one before runs. A prompt whose KV is
being loaded waits until it is there, without holding up the others; LMCache loads it from the drives into DRAM before
it has room in HBM, and does not ask what HBM holds of it. The drives deliver one load after another at the replica's
share of their rate. With `min_load_gbps` a load that would arrive later than computing takes is cut, as
kvstrata.l2.breakeven does. What is copied from DRAM into HBM takes its time from the GPU.

Left out: writes to the drives take nothing from reads (kvstrata.l2 lets loads go first), preemption (a sequence starts
when its prompt and half of its answer fit), and copies from HBM into DRAM: nothing that was measured shows them.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from kvstrata.bench.statistics import percentile
from kvstrata.plan.caches import BLOCK, Found, Hbm, Offload, Prefix
from kvstrata.plan.engine import REQUEST_OVERHEAD_S, Engine
from kvstrata.plan.figures import Basis, Figure
from kvstrata.plan.line import Line
from kvstrata.plan.tiers import Tier, TierName
from kvstrata.plan.workload import Turn, Workload, conversations

GIB = 1 << 30
COPY_GBPS = Figure(23.0, Basis.MEASURED, "LMCache's mean over its loads, H100, benchmarks/results/gpu-8b-h100.json.gz")
"""10^9 bytes/s of copies into HBM, during which the GPU computes nothing: so the throughput of that run is predicted
within 1 %, and without it 10 to 12 % too high."""


@dataclass(frozen=True)
class Setup:
    """What serves: a replica and its share of its node's tiers."""

    engine: Engine
    tiers: tuple[Tier, ...]
    sharing: int
    """Replicas of the node, which share rates and DRAM."""
    fleet: int
    """Replicas of the site, which share the drives' capacity."""
    chunk_tokens: int
    min_load_gbps: float = 0.0
    block_tokens: int = BLOCK
    retain: bool = True
    """Whether DRAM keeps what it got from the drives: LMCache's --l2-prefetch-policy, as roles/lmcache sets it."""
    lookups: int = 32
    """Requests that LMCache looks up at once, until they are loaded: its --l2-prefetch-max-in-flight, likewise."""
    recheck_s: float = 30.0
    """For how long it is not asked again about what HBM has: vllm_lmcache_recheck_s of roles/vllm; 0: it always is."""
    ask_chunks: int = 2
    """How many chunks HBM must lack for it to be asked, where it is not known to have them: vllm_lmcache_ask_chunks."""

    def chunks(self, name: TierName) -> int:
        """Return how many chunks this replica's share of a tier holds."""
        size = self.engine.kv.stored_bytes_per_token * self.chunk_tokens
        parts = self.sharing if name is TierName.DRAM else self.fleet
        return next((int(tier.capacity_gib * GIB / parts / size) for tier in self.tiers if tier.name is name), 0)

    def seconds_per_byte(self, name: TierName) -> float:
        """Return what a stored byte takes from a tier while all replicas of the node load; 0 without that tier."""
        return next((self.sharing / (tier.gbps * 1e9) for tier in self.tiers if tier.name is name), 0.0)


@dataclass
class Outcome:
    """What happened to the requests that were counted, by the moment of their first token."""

    seconds: float = 0.0
    requests: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    hbm_tokens: int = 0
    dram_tokens: int = 0
    ssd_tokens: int = 0
    written_bytes: float = 0.0
    ttft_s: list[float] = field(default_factory=list)
    cached: list[float] = field(default_factory=list)
    """Of each request in `ttft_s`, the share of its prompt that came from any cache."""

    def quantile(self, share: float) -> float:
        """Return the TTFT that this share of requests did not exceed, by nearest rank; 0 without requests."""
        return percentile(self.ttft_s, 100 * share) if self.ttft_s else 0.0

    def median_where(self, least: float, most: float) -> float | None:
        """Return the median TTFT of the requests of which such a share was cached; None without one."""
        chosen = [ttft for ttft, share in zip(self.ttft_s, self.cached, strict=True) if least <= share <= most]
        return percentile(chosen, 50) if chosen else None

    @property
    def output_per_s(self) -> float:
        """Tokens of answers a second."""
        return self.output_tokens / self.seconds if self.seconds else 0.0

    @property
    def hit_rate(self) -> float:
        """Tokens from any cache / all prompt tokens."""
        return (self.hbm_tokens + self.dram_tokens + self.ssd_tokens) / max(1, self.prompt_tokens)


@dataclass
class _Request:
    user: int
    conversation: int
    turn: Turn
    arrived: float
    prefix: Prefix = field(default_factory=lambda: Prefix((), 1))
    found: Found = field(default_factory=lambda: Found(0, 0, 0))
    position: int = 0
    stored: int | None = None
    """Of a request about which LMCache is not asked: the tokens that it has of the prompt."""

    @property
    def total(self) -> int:
        return self.turn.prompt + self.turn.output

    @property
    def held(self) -> int:
        """Tokens of HBM that it takes while it runs: vLLM adds blocks as the answer grows, on average half of them."""
        return self.turn.prompt + self.turn.output // 2


class Simulation:
    """Users and the caches that they fill. A second call of `run` finds the caches as the first one left them."""

    def __init__(self, setup: Setup, workload: Workload, users: int, think_s: float, seed: int) -> None:
        """Prepare `users` users of one replica, who think `think_s` seconds (exponential, mean) between their turns."""
        self._setup, self._users, self._think = setup, users, think_s
        self._rng = random.Random(seed)  # noqa: S311 - a workload, no secret
        self._source = conversations(workload, seed)
        # vLLM keeps one block back (its null block, v1/core/block_pool.py).
        self._hbm = Hbm(setup.engine.hbm_tokens - setup.block_tokens, setup.block_tokens)
        chunks = {name: setup.chunks(name) for name in TierName}
        self._offload = Offload(setup.chunk_tokens, chunks[TierName.DRAM], chunks[TierName.SSD], setup.retain)
        self._per_byte = {name: setup.seconds_per_byte(name) for name in TierName}
        self._line: Line[_Request] = Line(setup.lookups)
        self._copying = 0.0
        """Seconds of copies that the next step waits for."""
        self._arrivals: list[tuple[float, int, _Request]] = []
        self._loading: list[tuple[float, int, _Request]] = []
        self._blocked: deque[_Request] = deque()
        self._ready: deque[_Request] = deque()
        self._running: list[tuple[int, int, _Request]] = []
        self._asked: dict[int, tuple[float, int]] = {}
        """When LMCache was last asked about a conversation, and how many of its tokens were stored since."""
        self._left: dict[int, tuple[int, Iterator[Turn]]] = {}
        self._held: list[list[Turn]] = []
        self._number = self._context = self._steps = self._begun = self._written = 0
        self._todo = self._from = self._distinct = 0
        self._now = 0.0
        self._decided = 0.0
        """When the next step was decided on: at the begin of the last one."""
        self._started: float | None = None
        self._exhausted = False
        self._outcome = Outcome()

    def run(self, held: int, counted_from: int, distinct: int = 0, to_the_end: bool = False) -> Outcome:
        """Hold conversations one after another and return what happened in a part of the run.

        Args:
            held: conversations to begin, those of earlier calls included.
            counted_from: counting starts when this one begins, and ends when no further one can.
            distinct: after so many the same ones are held again; 0 is never.
            to_the_end: count until the last user is gone, as a benchmark does.

        Raises:
            ValueError: when a conversation is longer than all of HBM.
        """
        self._todo, self._from, self._distinct = held, counted_from, distinct
        self._exhausted = False
        for user in range(min(self._users, held - self._begun)):
            self._next_turn(user, self._rng.random() * self._think)
        while self._ready or self._running or self._blocked or self._next_event() is not None:
            if self._exhausted and not to_the_end:
                break
            self._take_arrivals()
            if self._ready or self._running:
                self._step()
            elif (event := self._next_event()) is not None:
                self._now = max(self._now, event)
            else:
                raise ValueError("HBM holds less than one conversation")
        out = self._outcome
        out.seconds = self._now - (self._started or 0.0)
        size = self._bytes * self._setup.chunk_tokens
        out.written_bytes = (self._offload.written_chunks - self._written) * size
        return out

    def _next_turn(self, user: int, wait: float) -> None:
        number, turns = self._left.get(user, (-1, iter(())))
        turn = next(turns, None)
        if turn is None:
            if self._begun >= self._todo:
                self._exhausted = True
                return
            number, turns = self._conversation(self._begun)
            if self._begun >= self._from and self._started is None:
                self._started, self._written = self._now, self._offload.written_chunks
            self._begun += 1
            self._left[user] = (number, turns)
            turn = next(turns)
        self._number += 1
        request = _Request(user, number, turn, self._now + wait)
        heapq.heappush(self._arrivals, (request.arrived, self._number, request))

    def _conversation(self, begun: int) -> tuple[int, Iterator[Turn]]:
        if not self._distinct:
            return begun, iter(next(self._source))
        if begun < self._distinct:
            self._held.append(next(self._source))
        return begun % self._distinct, iter(self._held[begun % self._distinct])

    def _take_arrivals(self) -> None:
        known = self._decided if self._running else self._now
        while self._arrivals and self._arrivals[0][0] <= known:
            self._look_up(heapq.heappop(self._arrivals)[2])
        for request in self._line.over(known):
            self._offload.loaded(request.conversation, request.prefix)
            self._blocked.append(request)
        while self._blocked:
            request = self._blocked[0]
            if request.stored is not None and not self._goes_on(request):
                # It lost its blocks in HBM while it waited.
                request.stored = None
                self._ask(self._blocked.popleft())
            elif self._start(request):
                self._blocked.popleft()
            else:
                break
        while self._loading and self._loading[0][0] <= known:
            self._ready.append(heapq.heappop(self._loading)[2])

    def _next_event(self) -> float | None:
        """Return when the next request arrives or is loaded; None where none will by itself."""
        times = [queue[0][0] for queue in (self._arrivals, self._loading) if queue]
        if (end := self._line.next_s) is not None:
            times.append(end)
        return min(times, default=None)

    def _look_up(self, request: _Request) -> None:
        """Let a request go on that HBM has, as kvstrata.node.hbm_first judges it; ask about the others."""
        if self._goes_on(request):
            self._blocked.append(request)
        else:
            self._ask(request)

    def _goes_on(self, request: _Request) -> bool:
        chunk, here = self._setup.chunk_tokens, self._hbm.held(request.conversation)
        chunks = request.turn.prompt // chunk * chunk
        asked, stored = self._asked.get(request.conversation, (float("-inf"), 0))
        fresh = self._now - asked < self._setup.recheck_s
        asks = self._setup.recheck_s == 0 or not self._setup.tiers
        # The one chunk that HBM lacks is new, unless it was stored before.
        least = chunk if stored >= chunks else chunk * self._setup.ask_chunks
        if asks or (chunks and (not fresh or chunks - here >= least)):
            return False
        request.stored = min(stored, here // chunk * chunk)
        return True

    def _ask(self, request: _Request) -> None:
        """Ask the tiers, and the drives for what DRAM lacks: before there is room in HBM, and whatever that has."""
        self._asked[request.conversation] = self._now, 0
        request.prefix = self._cut(self._offload.look_up(request.conversation, request.turn.prompt))
        delivery_s = request.prefix.to_load * self._bytes * self._per_byte[TierName.SSD]
        self._line.join(self._now, delivery_s, request)

    def _start(self, request: _Request) -> bool:
        here = self._hbm.admit(request.conversation, request.held)
        if here is None:
            return False
        request.found = found = request.prefix.behind(min(here, request.turn.prompt - 1))
        request.position = found.cached
        size = (found.dram + found.ssd) * self._bytes
        # Each rank copies its own part at the same time.
        self._copying += (found.dram + found.ssd) * self._setup.engine.kv.rank_bytes_per_token / (COPY_GBPS.value * 1e9)
        self._number += 1
        heapq.heappush(self._loading, (self._now + size * self._per_byte[TierName.DRAM], self._number, request))
        return True

    @property
    def _bytes(self) -> float:
        return self._setup.engine.kv.stored_bytes_per_token

    def _cut(self, prefix: Prefix) -> Prefix:
        """Leave out what the drives would deliver later than computing takes, as kvstrata.l2.breakeven judges it."""
        if not self._setup.min_load_gbps or not prefix.to_load:
            return prefix
        # It is asked for every chunk, for LMCache does not tell it which of them are in DRAM.
        size = prefix.reach * self._bytes
        arrival = self._line.backlog_s(self._now) + size * self._per_byte[TierName.SSD]
        return prefix if arrival <= size / (self._setup.min_load_gbps * 1e9) else prefix.without_drives()

    def _step(self) -> None:
        """Compute one step, or as many as pass with nothing but decoding."""
        engine, decoding = self._setup.engine, len(self._running)
        budget, new, attention, read = engine.step_tokens - decoding, 0, 0.0, self._context
        done = []
        while self._ready and budget > 0:
            request = self._ready[0]
            tokens = min(budget, request.turn.prompt - request.position)
            attention += engine.kv.shape.attention_flops(request.position, tokens)
            read += request.position
            request.position += tokens
            budget, new = budget - tokens, new + tokens
            if request.position == request.turn.prompt:
                done.append(self._ready.popleft())
        seconds = engine.step_s(decoding + new, attention, read, max(1, decoding + len(done)))
        steps = 1 if new else self._quiet_steps(seconds)
        self._now += steps * seconds + self._copying
        self._decided = self._now - seconds
        self._copying = 0.0
        self._steps += steps
        self._context += steps * decoding
        for request in done:
            self._first_token(request)
        while self._running and self._running[0][0] <= self._steps:
            self._end(heapq.heappop(self._running)[2])

    def _quiet_steps(self, seconds: float) -> int:
        """Return how many steps pass before a sequence ends, or one arrives or is loaded."""
        steps = self._running[0][0] - self._steps
        if (event := self._next_event()) is not None:
            steps = min(steps, int((event - self._now) / seconds) + 1)
        # The context grows by one token a sequence and step: short strides keep its mean honest.
        return max(1, min(steps, 64))

    def _first_token(self, request: _Request) -> None:
        turn, found = request.turn, request.found
        reach = request.prefix.reach if request.stored is None else request.stored
        self._offload.take(request.conversation, turn.prompt, reach)
        asked, _ = self._asked.get(request.conversation, (float("-inf"), 0))
        self._asked[request.conversation] = asked, turn.prompt // self._setup.chunk_tokens * self._setup.chunk_tokens
        self._context += turn.prompt
        self._number += 1
        heapq.heappush(self._running, (self._steps + turn.output - 1, self._number, request))
        if self._started is None:
            return
        out = self._outcome
        out.requests += 1
        out.prompt_tokens += turn.prompt
        out.hbm_tokens += found.hbm
        out.dram_tokens += found.dram
        out.ssd_tokens += found.ssd
        out.output_tokens += turn.output
        out.ttft_s.append(self._now - request.arrived + REQUEST_OVERHEAD_S.value)
        out.cached.append(found.cached / turn.prompt)

    def _end(self, request: _Request) -> None:
        self._context -= request.total - 1
        self._hbm.end(request.conversation, request.total, request.held)
        think = self._rng.expovariate(1 / self._think) if self._think else 0.0
        self._next_turn(request.user, think)
