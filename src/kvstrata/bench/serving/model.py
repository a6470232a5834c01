"""What workloads, drivers, stacks and reports of `bench serve` hand to each other. JSON forms: codec.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

type Json = str | int | float | bool | list[Json] | dict[str, Json] | None

Pass = Literal["cold", "warm"]
# Token ids, or the text that the model's tokenizer turns into exactly as many tokens as Turn.prompt_tokens says.
type Prompt = Sequence[int] | str

# By source (vllm:0, lmcache, l2, kvrocks:HOST, process:NAME, gpu:0), the counters or gauges by their own names.
type Counters = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Turn:
    """One request: the new part of its prompt, and how many tokens are asked for.

    The prompt that is sent is everything that the conversation holds so far (prompts and the answers really given),
    then this. think_s is the wait after the previous answer; the first turn does not wait.
    """

    prompt: Prompt
    prompt_tokens: int
    output_tokens: int
    think_s: float = 0.0


@dataclass(frozen=True)
class Conversation:
    """Turns that follow one another. start_s: seconds after the begin when the first is due; None in closed loop."""

    name: str
    turns: tuple[Turn, ...]
    start_s: float | None = None

    @property
    def tokens(self) -> int:
        """All that it has in the end, prompts and answers."""
        return sum(turn.prompt_tokens + turn.output_tokens for turn in self.turns)


@dataclass(frozen=True)
class Workload:
    """Conversations in the order of their begin.

    active: how many are held at once (closed loop: when one ends, the next begins); None: each begins at its start_s,
    whatever the engine does (open loop). parameters: all that made it, for the report; `note` says where it is scaled.
    """

    name: str
    conversations: tuple[Conversation, ...]
    active: int | None
    seed: int
    parameters: Mapping[str, Json] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """How many requests all conversations make."""
        return sum(len(conversation.turns) for conversation in self.conversations)

    @property
    def longest(self) -> int:
        """Tokens of the longest conversation, prompts and answers: what the engine must allow (--max-model-len)."""
        return max(conversation.tokens for conversation in self.conversations)

    @property
    def open_loop(self) -> bool:
        """Whether requests are sent by the clock."""
        return self.active is None

    @property
    def multi_turn(self) -> bool:
        """Whether any request depends on an earlier answer."""
        return any(len(conversation.turns) > 1 for conversation in self.conversations)


@dataclass(frozen=True)
class Endpoint:
    """Where requests go: `url` is the base without /v1, `model` the served name. timeout_s is for one whole request."""

    url: str
    model: str
    timeout_s: float = 600.0
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RequestSample:
    """One request as the client saw it. A request that failed is a sample too: error says why, times are what was seen.

    Times are in seconds. scheduled_s and started_s (sent) count from the begin of the load. ttft_s and e2e_s count from
    scheduled_s, so that in open loop a late client or a slow engine hides nothing; in closed loop both are one.
    itl_s: one gap for each token after the first, in order; tokens that came in one piece have a gap of 0 after the
    first of them, so that the gaps' sum is the time from the first token to the last, and their mean is TPOT.
    """

    conversation: str
    turn: int
    scheduled_s: float
    started_s: float
    ttft_s: float | None
    itl_s: tuple[float, ...]
    e2e_s: float
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int | None = None
    error: str | None = None
    output_ids: tuple[int, ...] | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What the same request has in every configuration and round."""
        return (self.conversation, self.turn)

    @property
    def ok(self) -> bool:
        """Whether the request was answered."""
        return self.error is None


@dataclass(frozen=True)
class ClientHealth:
    """How the load generator itself fared; a saturated client measures itself.

    lag_*_s: how late the client's event loop ran a timer (probed all through the run). late_*_s: how late requests were
    sent after they were due. cpu_share: processor seconds of the client in each second, of the one core it can use.
    None: the driver does not tell.
    """

    lag_p50_s: float | None = None
    lag_p99_s: float | None = None
    lag_max_s: float | None = None
    late_p99_s: float | None = None
    cpu_share: float | None = None

    @property
    def saturated(self) -> bool:
        """Whether its own delays show in what it measured: lag P99 of 20 ms and more, or 85% of its core in use."""
        return (self.lag_p99_s or 0.0) >= 0.02 or (self.cpu_share or 0.0) >= 0.85


@dataclass(frozen=True)
class Load:
    """What a driver brings back, and how it fared itself.

    samples: one for every request of the workload, in its order, the failed among them, and those that were not sent
    (an earlier turn of the conversation failed, or the deadline passed): their error begins with `not sent`.
    """

    driver: str
    samples: tuple[RequestSample, ...]
    duration_s: float
    client: ClientHealth = ClientHealth()
    notes: tuple[str, ...] = ()


class Driver(Protocol):
    """Something that sends a workload to an endpoint."""

    @property
    def name(self) -> str:
        """The name, as --driver takes it."""

    def refuses(self, workload: Workload) -> str | None:
        """Return why this driver cannot send that workload as it is declared, None if it can."""

    def run(self, endpoint: Endpoint, workload: Workload, sample_outputs: frozenset[str], deadline_s: float) -> Load:
        """Send the whole workload and wait for the answers.

        Args:
            endpoint: where to.
            workload: what.
            sample_outputs: names of the conversations whose samples keep their output ids (greedy, so comparable).
            deadline_s: seconds after which no request is sent and running ones are cut off; the errors of those begin
                with `deadline`.

        Raises:
            kvstrata.bench.errors.BenchError: if the driver itself cannot work; never for requests that fail.
        """


@dataclass(frozen=True)
class TierTokens:
    """Where the prompt tokens of one phase came from, by the engines' and LMCache's own counters; None: not told.

    l1: LMCache's memory (or the engine's own offloading), l2: the stores, computed: prefilled.
    """

    hbm: int | None
    l1: int | None
    l2: int | None
    computed: int | None


@dataclass(frozen=True)
class Phase:
    """One workload, once, on one configuration.

    before/after: counters read right before and right after the load (Counters says by which names).
    """

    configuration: str
    round: int
    workload: str
    pass_: Pass
    started_at: str
    duration_s: float
    samples: tuple[RequestSample, ...]
    before: Counters = field(default_factory=dict)
    after: Counters = field(default_factory=dict)
    tiers: TierTokens | None = None
    driver: str = "own"
    client: ClientHealth = ClientHealth()
    notes: tuple[str, ...] = ()
    error: str | None = None
