"""The connector of ours over a stand-in for LMCache's, which keeps what the real one does of it (lmcache 0.5.6).

The real ones meet in molecule's scenario vllm (tasks/asked.yml).
"""

from __future__ import annotations

import enum
import importlib
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

CHUNK, BLOCK = 256, 16


class State(enum.Enum):
    PREFETCHING = enum.auto()
    WAITING_FOR_LOAD = enum.auto()
    READY = enum.auto()


class Status(enum.Enum):
    WAITING = enum.auto()
    PREEMPTED = enum.auto()


class Role(enum.Enum):
    SCHEDULER = enum.auto()
    WORKER = enum.auto()


@dataclass
class Request:
    """A request as vLLM's scheduler shows it; the hash of a block stands for all tokens up to its end."""

    request_id: str
    all_token_ids: list[int]
    status: Status = Status.WAITING

    @property
    def block_hashes(self) -> list[bytes]:
        ends = range(BLOCK, len(self.all_token_ids) + 1, BLOCK)
        return [repr(self.all_token_ids[:end]).encode() for end in ends]


@dataclass
class Tracker:
    state: State = State.PREFETCHING
    num_stored_tokens: int = 0
    num_vllm_hit_tokens: int = 0
    request_configs: dict[str, Any] | None = None


@dataclass
class Reply:
    """A message that arrives at its moment, on the clock of the test; waiting moves that."""

    clock: Clock
    arrives: float

    def query(self) -> bool:
        return self.clock.now >= self.arrives

    def wait(self, timeout: float) -> bool:
        self.clock.now = max(self.clock.now, min(self.clock.now + timeout, self.arrives))
        return self.query()


@dataclass
class Lmcache:
    """What the connector's adapter talks to: the prefixes that it has, in tokens."""

    has: set[bytes] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    is_healthy: bool = True
    lmcache_tokens_per_chunk: int = CHUNK
    ended: list[str] = field(default_factory=list)
    clock: Clock | None = None
    """Where this is set, messages take `message_s` there, and chunks come from a drive until `loaded_at`."""
    message_s: float = 0.0
    loaded_at: float = 0.0
    _unacked_lookups: dict[str, Any] = field(default_factory=dict)
    _lookup_status: dict[str, dict[str, tuple[Reply, float]]] = field(default_factory=dict)

    def sends(self) -> Reply:
        assert self.clock is not None
        return Reply(self.clock, self.clock.now + self.message_s)

    def has_answered(self, request_id: str) -> bool:
        """Go on as its adapter does at each look: acknowledged first, then asked for what it found, again and again."""
        if self.clock is None:
            return True
        if request_id not in self._lookup_status:
            ack = self._unacked_lookups.setdefault(request_id, SimpleNamespace(futures={"url": self.sends()}))
            if not ack.futures["url"].query():
                return False
            del self._unacked_lookups[request_id]
        status = self._lookup_status.setdefault(request_id, {})
        reply, _ = status.setdefault("url", (self.sends(), self.clock.now))
        if not reply.query():
            return False
        del status["url"]
        return self.clock.now >= self.loaded_at

    def end_session(self, request_id: str) -> None:
        self.ended.append(request_id)


class AskingConnector:
    """LMCache's connector, as far as ours uses it. Answers come at once, and a request stores its prompt at its end."""

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any = None) -> None:
        self.lazy_offload = vllm_config.lazy_offload
        self._eager_prefetch = vllm_config.eager_prefetch
        self._group_tokens_per_block = vllm_config.blocks
        self.scheduler_adapter = Lmcache()
        self.request_trackers: dict[str, Tracker] = {}
        self._hit_alignment_tokens = math.lcm(*vllm_config.blocks)
        self.emptied = False
        self.reported = 0

    def _get_or_create_request_tracker(self, request: Request) -> Tracker:
        return self.request_trackers.setdefault(request.request_id, Tracker())

    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> tuple[int | None, bool]:
        server, tracker = self.scheduler_adapter, self.request_trackers[request.request_id]
        if not server.is_healthy:
            return 0, False
        server.asked.append(request.request_id)
        if not server.has_answered(request.request_id):
            return None, True
        chunks = 0
        while (chunks + 1) * CHUNK <= len(request.all_token_ids) and prefix(request, chunks + 1) in server.has:
            chunks += 1
        tracker.num_vllm_hit_tokens = num_computed_tokens // BLOCK * BLOCK
        if chunks:
            tracker.num_stored_tokens = chunks * CHUNK
        found = max(0, chunks * CHUNK - num_computed_tokens)
        return found, found > 0

    def request_finished(self, request: Request, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        del self.request_trackers[request.request_id]
        self.scheduler_adapter.end_session(request.request_id)
        return True, None

    def build_connector_meta(self, scheduler_output: Any) -> Any:
        self._report_block_allocation_deltas(scheduler_output)
        return "meta"

    def _report_block_allocation_deltas(self, scheduler_output: Any) -> None:
        self.reported += 1

    def reset_cache(self) -> bool | None:
        self.emptied = True
        return True


def prefix(request: Request, chunks: int) -> bytes:
    return request.block_hashes[chunks * CHUNK // BLOCK - 1]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    stand_ins: dict[str, dict[str, Any]] = {
        "lmcache.integration.vllm.lmcache_mp_connector": {"LMCacheMPConnector": AskingConnector},
        "lmcache.integration.vllm.lmcache_mp_metadata": {"LMCacheMPRequestState": State},
        "vllm.distributed.kv_transfer.kv_connector.v1.base": {"KVConnectorRole": Role},
        "vllm.v1.request": {"RequestStatus": Status},
    }
    for name, content in stand_ins.items():
        parts = name.split(".")
        for end in range(1, len(parts)):
            monkeypatch.setitem(sys.modules, ".".join(parts[:end]), ModuleType(".".join(parts[:end])))
        made = ModuleType(name)
        vars(made).update(dict(content))
        monkeypatch.setitem(sys.modules, name, made)
    monkeypatch.delitem(sys.modules, "kvstrata.node.hbm_first", raising=False)
    yield importlib.import_module("kvstrata.node.hbm_first")
    sys.modules.pop("kvstrata.node.hbm_first", None)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Engine:
    """A scheduler with the connector: requests one after the other."""

    connector: Any
    clock: Clock
    count: int = 0

    @property
    def lmcache(self) -> Lmcache:
        server: Lmcache = self.connector.scheduler_adapter
        return server

    def request(self, tokens: list[int], hbm: int, *, stores: bool = True) -> tuple[int | None, Tracker, bool]:
        """Return what the connector finds, what it knows of the request at its end, and whether LMCache was asked."""
        self.count += 1
        one = Request(f"r{self.count}", tokens)
        found, _ = self.connector.get_num_new_matched_tokens(one, hbm)
        tracker = self.connector.request_trackers[one.request_id]
        tracker.state = State.READY
        before = tracker.num_stored_tokens
        tracker.num_stored_tokens = len(tokens) // CHUNK * CHUNK
        if stores and self.lmcache.is_healthy:
            self.lmcache.has |= {prefix(one, n) for n in range(before // CHUNK + 1, len(tokens) // CHUNK + 1)}
        self.connector.request_finished(one, [])
        return found, Tracker(num_stored_tokens=before), one.request_id in self.lmcache.asked


def engine(
    module: Any,
    recheck_s: float = 30.0,
    *,
    lazy: bool = False,
    eager: bool = False,
    blocks: list[int] | None = None,
    unit: int | None = None,
    ask_chunks: int = 1,
    answer_ms: float = 0.0,
) -> Engine:
    extra = {"kvstrata.recheck_s": recheck_s, "kvstrata.ask_chunks": ask_chunks, "kvstrata.answer_ms": answer_ms}
    transfer = SimpleNamespace(get_from_extra_config=lambda name, default: extra.get(name, default))
    config = SimpleNamespace(
        kv_transfer_config=transfer,
        cache_config=SimpleNamespace(prefix_match_unit=unit),
        lazy_offload=lazy,
        eager_prefetch=eager,
        blocks=blocks or [BLOCK],
    )
    made = module.LMCacheMPConnector(config, Role.SCHEDULER)
    clock = Clock()
    made._known._clock = clock
    module.time = SimpleNamespace(monotonic=clock)
    return Engine(made, clock)


def turn(tokens: int) -> list[int]:
    return list(range(tokens))


def test_a_turn_of_a_conversation_that_hbm_has_goes_on_without_lmcache(module: Any) -> None:
    one = engine(module)
    assert one.request(turn(1000), hbm=0)[2], "the first turn must be asked about"
    found, tracker, asked = one.request(turn(1250), hbm=1120)
    assert (found, asked) == (0, False)
    # Three whole chunks of the first turn were stored then; what follows them is stored now.
    assert tracker.num_stored_tokens == 768
    assert {prefix(Request("x", turn(1250)), n) for n in (1, 2, 3, 4)} <= one.lmcache.has


def test_a_conversation_is_asked_about_again_after_the_seconds_however_often_it_went_on(module: Any) -> None:
    one = engine(module)
    one.request(turn(1000), hbm=0)
    asked = []
    for length in range(1100, 1700, 100):
        one.clock.now += 7
        asked.append(one.request(turn(length), hbm=length - 100)[2])
    assert asked == [False, False, False, False, True, False]


def test_what_lmcache_lost_meanwhile_is_stored_again_when_it_is_asked(module: Any) -> None:
    one = engine(module)
    one.request(turn(1000), hbm=0)
    one.lmcache.has.clear()
    one.clock.now += 31
    _, tracker, asked = one.request(turn(1100), hbm=1000)
    assert (asked, tracker.num_stored_tokens) == (True, 0)
    assert len(one.lmcache.has) == 4


@pytest.mark.parametrize(
    ("known", "tokens", "hbm", "asked"),
    [
        (1100, 1100, 1024, False),  # Four chunks, all of them in HBM.
        (800, 1100, 784, False),  # LMCache could add 240 tokens: less than a chunk.
        (800, 1100, 768, True),  # It could add a chunk.
        (1100, 1100, 0, True),
        (1100, 1100, 784, True),  # It is known to have what HBM lacks.
        (1100, 200, 0, False),  # No whole chunk: it cannot have it.
    ],
)
def test_it_is_asked_where_it_could_add_a_chunk(module: Any, known: int, tokens: int, hbm: int, asked: bool) -> None:
    one = engine(module)
    one.request(turn(known), hbm=0)
    assert one.request(turn(tokens), hbm=hbm)[2] is asked


@pytest.mark.parametrize(
    ("known", "tokens", "hbm", "asked"),
    [
        (800, 1100, 768, False),  # The one chunk that HBM lacks is new.
        (800, 1279, 768, False),
        (800, 1280, 768, True),  # Two of them may be another engine's.
        (1100, 1100, 784, True),  # It had that one before.
        (1100, 1100, 1024, False),
    ],
)
def test_it_is_not_asked_about_less_than_so_many_chunks_that_nobody_had(
    module: Any, known: int, tokens: int, hbm: int, asked: bool
) -> None:
    one = engine(module, ask_chunks=2)
    one.request(turn(known), hbm=0)
    assert one.request(turn(tokens), hbm=hbm)[2] is asked


def test_a_chunk_that_was_not_asked_about_is_stored_and_known_from_then_on(module: Any) -> None:
    one = engine(module, ask_chunks=2)
    one.request(turn(800), hbm=0)
    _, tracker, asked = one.request(turn(1100), hbm=800)
    assert (asked, tracker.num_stored_tokens) == (False, 768)
    assert prefix(Request("x", turn(1100)), 4) in one.lmcache.has
    # HBM loses its end: LMCache is known to have it.
    assert one.request(turn(1100), hbm=768)[2]


def test_another_beginning_is_another_prefix(module: Any) -> None:
    one = engine(module)
    one.request(turn(1000), hbm=0)
    assert one.request([7, *turn(999)], hbm=992)[2]


def test_it_is_asked_about_everything_where_that_is_wanted(module: Any) -> None:
    one = engine(module, 0)
    one.request(turn(1000), hbm=0)
    assert one.request(turn(1000), hbm=992)[2]
    assert one.request(turn(100), hbm=0)[2]


def test_what_waits_for_its_eviction_is_not_taken_for_stored(module: Any) -> None:
    one = engine(module, lazy=True)
    one.request(turn(1000), hbm=0)
    assert one.request(turn(1000), hbm=992)[2]


def test_an_lmcache_that_was_away_is_asked_again(module: Any) -> None:
    one = engine(module)
    one.request(turn(1000), hbm=0)
    one.lmcache.is_healthy = False
    assert one.request(turn(1000), hbm=992)[0] == 0
    one.lmcache.is_healthy = True
    assert one.request(turn(1000), hbm=992)[2]


def test_what_ended_while_lmcache_was_away_is_not_taken_for_stored(module: Any) -> None:
    one = engine(module)
    one.lmcache.is_healthy = False
    one.request(turn(1000), hbm=0)
    one.lmcache.is_healthy = True
    assert one.request(turn(1000), hbm=992)[2]


def test_an_emptied_cache_is_asked_again(module: Any) -> None:
    one = engine(module)
    one.request(turn(1000), hbm=0)
    assert one.connector.reset_cache() is True
    assert one.connector.emptied
    assert one.request(turn(1000), hbm=992)[2]


def test_a_request_that_lost_its_blocks_in_hbm_while_it_waited_is_asked_about_from_its_beginning(module: Any) -> None:
    one = engine(module)
    one.request(turn(1000), hbm=0)
    waiting = Request("w", turn(1100))
    assert one.connector.get_num_new_matched_tokens(waiting, 1024) == (0, False)
    one.lmcache.has.clear()
    assert one.connector.get_num_new_matched_tokens(waiting, 0) == (0, False)
    assert "w" in one.lmcache.asked
    assert one.connector.request_trackers["w"].num_stored_tokens == 0
    # LMCache holds what it found until it is told: once asked, always asked.
    assert one.connector.get_num_new_matched_tokens(waiting, 1024) == (0, False)
    assert one.lmcache.asked.count("w") == 2


def test_a_request_that_was_preempted_is_asked_about(module: Any) -> None:
    one = engine(module)
    one.request(turn(1000), hbm=0)
    back = Request("p", turn(1000), Status.PREEMPTED)
    one.connector.get_num_new_matched_tokens(back, 992)
    assert "p" in one.lmcache.asked


def test_a_request_with_wishes_of_its_own_is_asked_about(module: Any) -> None:
    one = engine(module)
    one.request(turn(1000), hbm=0)
    own = Request("o", turn(1000))
    one.connector._get_or_create_request_tracker(own).request_configs = {"lmcache.tag": "t"}
    one.connector.get_num_new_matched_tokens(own, 992)
    assert "o" in one.lmcache.asked


@pytest.mark.parametrize(("recheck_s", "reports"), [(30.0, 0), (0.0, 1)])
def test_lmcache_is_told_nothing_of_blocks_in_hbm_unless_all_is_as_it_has_it(
    module: Any, recheck_s: float, reports: int
) -> None:
    connector = engine(module, recheck_s).connector
    assert connector.build_connector_meta(None) == "meta"
    assert connector.reported == reports


def test_a_conversation_that_is_too_old_is_asked_about_though_its_beginning_is_that_of_a_fresh_one(module: Any) -> None:
    one = engine(module)
    one.request(turn(1000), hbm=0)
    one.clock.now += 31
    one.request(turn(300), hbm=0)
    assert one.request(turn(1100), hbm=1000)[2]


def test_only_what_lmcache_knows_of_is_ended_there(module: Any) -> None:
    one = engine(module)
    # Asked about; not asked about, with nothing new to store; with a chunk to store.
    for tokens, hbm in ((1000, 0), (1010, 1000), (1100, 1000), (100, 0)):
        one.request(turn(tokens), hbm=hbm)
    assert one.lmcache.ended == ["r1", "r3"]
    assert one.connector._left_out == {}


@pytest.mark.parametrize(
    "told", [{"blocks": [16, 32]}, {"unit": 8}, {"eager": True}], ids=["two sizes of blocks", "finer hashes", "eager"]
)
def test_it_is_asked_about_everything_where_hashes_do_not_tell(module: Any, told: dict[str, Any]) -> None:
    one = engine(module, **told)
    one.request(turn(1000), hbm=0)
    assert one.request(turn(1000), hbm=992)[2]


def test_nothing_of_a_request_is_kept_after_its_end(module: Any) -> None:
    one = engine(module)
    for length in range(300, 3000, 100):
        one.request(turn(length), hbm=length - 100)
    assert (one.connector._asked_at, one.connector._asking, one.connector._waited) == ({}, set(), {})


def far(module: Any, answer_ms: float, message_ms: float, loaded_s: float = 0.0) -> Engine:
    """Return an engine whose LMCache has a prompt of four chunks, and is so far away."""
    one = engine(module, answer_ms=answer_ms)
    one.lmcache.has = {prefix(Request("x", turn(1024)), n) for n in (1, 2, 3, 4)}
    one.lmcache.clock, one.lmcache.message_s = one.clock, message_ms / 1000
    one.lmcache.loaded_at = one.clock.now + loaded_s
    return one


def look(one: Engine, name: str) -> tuple[int | None, float]:
    """Return what a step finds of a request, and for how many milliseconds it waited."""
    began = one.clock.now
    found, _ = one.connector.get_num_new_matched_tokens(Request(name, turn(1025)), 0)
    return found, round((one.clock.now - began) * 1000, 6)


def step(one: Engine) -> None:
    """End a step of the scheduler; the next one begins 7 ms later."""
    one.connector.build_connector_meta(None)
    one.clock.now += 0.007


def steps(one: Engine, name: str, count: int) -> list[tuple[int | None, float]]:
    """Look at a request in so many steps."""
    found = []
    for _ in range(count):
        found.append(look(one, name))
        step(one)
    return found


def test_an_answer_in_two_messages_is_there_in_the_step_that_asked(module: Any) -> None:
    one = far(module, answer_ms=2, message_ms=0.5)
    assert look(one, "r1") == (1024, 1.0)


def test_without_that_time_it_is_there_two_steps_later(module: Any) -> None:
    one = far(module, answer_ms=0, message_ms=0.5)
    assert steps(one, "r1", 3) == [(None, 0.0), (None, 0.0), (1024, 0.0)]


def test_all_requests_of_a_step_share_its_time_and_the_next_step_has_its_own(module: Any) -> None:
    one = far(module, answer_ms=2, message_ms=0.7)
    assert [look(one, name) for name in ("r1", "r2", "r3")] == [(1024, 1.4), (None, 0.6), (None, 0.0)]
    one.connector.build_connector_meta(None)
    assert [look(one, name) for name in ("r2", "r3", "r4")] == [(1024, 0.8), (1024, 0.7), (None, 0.5)]


def test_what_takes_longer_is_waited_for_in_two_steps_and_looked_for_in_each(module: Any) -> None:
    one = far(module, answer_ms=2, message_ms=0.3, loaded_s=0.05)
    # Acknowledged and looked up; looked up again; from then on what it said is looked for at the next step.
    assert steps(one, "r1", 7) == [(None, 0.6), (None, 0.3), *[(None, 0.0)] * 5]
    assert (1024, 0.0) in steps(one, "r1", 3)


def test_an_answer_that_is_there_a_moment_later_is_found_in_the_next_step(module: Any) -> None:
    one = far(module, answer_ms=2, message_ms=0.3, loaded_s=0.006)
    assert steps(one, "r1", 2) == [(None, 0.6), (1024, 0.3)]


def test_who_waits_for_a_drive_takes_no_time_from_those_that_come(module: Any) -> None:
    one = far(module, answer_ms=2, message_ms=0.3, loaded_s=60)
    waiting = [f"r{number}" for number in range(20)]
    for _ in range(20):
        for name in waiting:
            look(one, name)
        step(one)
    one.lmcache.loaded_at = 0
    # vLLM looks at those first that have waited.
    assert sum(look(one, name)[1] for name in waiting) == 0
    assert look(one, "new") == (1024, 0.6)


def test_an_lmcache_that_says_nothing_is_waited_for_once(module: Any) -> None:
    one = far(module, answer_ms=2, message_ms=1000)
    assert [steps(one, f"r{number}", 1) for number in range(3)] == [[(None, 2.0)], [(None, 0.0)], [(None, 0.0)]]
    one.clock.now += 2
    one.lmcache.message_s = 0.0003
    assert steps(one, "r0", 2) == [(None, 0.0), (1024, 0.0)]
    # It has said something.
    assert steps(one, "new", 1) == [(1024, 0.6)]


def test_an_lmcache_that_goes_away_while_a_request_waits_is_waited_for_no_more(module: Any) -> None:
    one = far(module, answer_ms=2, message_ms=0.5, loaded_s=60)
    assert look(one, "r1") == (None, 1.0)
    step(one)
    one.lmcache.is_healthy = False
    assert look(one, "r1") == (0, 0.0)


def test_an_lmcache_that_is_away_is_not_waited_for(module: Any) -> None:
    one = far(module, answer_ms=2, message_ms=0.5)
    one.lmcache.is_healthy = False
    assert look(one, "r1") == (0, 0.0)
