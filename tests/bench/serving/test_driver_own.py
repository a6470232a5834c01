"""Our load generator against a server whose delays are known."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

import pytest

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.drivers import own
from kvstrata.bench.serving.drivers.completion import request_body
from kvstrata.bench.serving.drivers.own import OwnDriver
from kvstrata.bench.serving.model import ClientHealth, Conversation, Endpoint, Load, Turn, Workload
from tests.bench.serving.fake_engine import FakeEngine, Plan, Request, fake_engine

# What a busy machine may add to a time that is known; the times themselves are longer, so that a mix-up shows.
SLACK_S = 0.25


def turn(tokens: int = 4, output: int = 5, think_s: float = 0.0, first: int = 0) -> Turn:
    return Turn(tuple(range(first, first + tokens)), tokens, output, think_s)


def closed(*conversations: Conversation, active: int = 1) -> Workload:
    return Workload("test", conversations, active, 1)


def one(*turns: Turn, name: str = "c", start_s: float | None = None) -> Conversation:
    return Conversation(name, turns or (turn(),), start_s)


def send(
    engine: FakeEngine,
    workload: Workload,
    kept: frozenset[str] = frozenset(),
    deadline_s: float = 30,
    **endpoint: float,
) -> Load:
    return OwnDriver().run(Endpoint(engine.url, "m", **endpoint), workload, kept, deadline_s)  # type: ignore[arg-type]


def test_times_to_first_token_between_tokens_and_to_the_end_are_what_the_server_took() -> None:
    with fake_engine(lambda request: Plan(first_s=0.8, gap_s=0.3)) as engine:
        (sample,) = send(engine, closed(one(turn(output=5)))).samples
    (request,) = engine.requests
    assert sample.error is None
    assert sample.ttft_s is not None
    assert sample.ttft_s == pytest.approx(request.pieces[0] - request.at, abs=SLACK_S)
    assert sample.ttft_s >= 0.8
    assert len(sample.itl_s) == 4
    gaps = [after - before for before, after in pairwise(request.pieces)]
    assert sample.itl_s == pytest.approx(gaps, abs=SLACK_S)
    assert sum(sample.itl_s) == pytest.approx(sum(gaps), abs=SLACK_S)
    assert sample.e2e_s == pytest.approx(sample.ttft_s + sum(sample.itl_s))
    assert (sample.prompt_tokens, sample.output_tokens, sample.cached_tokens) == (4, 5, 16)


@pytest.mark.parametrize("kept", [frozenset[str](), frozenset({"c"})])
def test_tokens_of_one_piece_have_gaps_of_zero_after_its_first(kept: frozenset[str]) -> None:
    with fake_engine(lambda request: Plan(gap_s=0.05, piece_tokens=3)) as engine:
        (sample,) = send(engine, closed(one(turn(output=7))), kept).samples
    assert [gap > 0.02 for gap in sample.itl_s] == [False, False, True, False, False, True]
    assert [gap == 0 for gap in sample.itl_s] == [True, True, False, True, True, False]


def test_a_turn_is_sent_after_the_one_before_with_the_answer_that_was_really_given() -> None:
    first, second, third = turn(3, 2, first=0), turn(2, 4, first=10), turn(1, 3, first=20)
    with fake_engine() as engine:
        samples = send(engine, closed(one(first, second, third))).samples
    assert [request.ids for request in engine.requests] == [
        [0, 1, 2],
        [0, 1, 2, 500, 501, 10, 11],
        [0, 1, 2, 500, 501, 10, 11, 500, 501, 502, 503, 20],
    ]
    assert all(after.at >= before.until for before, after in pairwise(engine.requests))
    assert [sample.prompt_tokens for sample in samples] == [3, 7, 12]
    assert {request.headers["x-session-id"] for request in engine.requests} == {"c"}


def test_a_conversation_in_text_continues_in_text() -> None:
    with fake_engine() as engine:
        send(engine, closed(one(Turn("ab", 2, 2), Turn("cd", 2, 3))))
    assert [request.body["prompt"] for request in engine.requests] == ["ab", "abxxcd"]
    assert engine.requests[0].body["add_special_tokens"] is False


def test_requests_are_greedy_and_as_long_as_the_workload_says() -> None:
    with fake_engine() as engine:
        send(engine, closed(one(turn(output=9))))
    body = engine.requests[0].body
    assert (body["temperature"], body["ignore_eos"]) == (0, True)
    assert (body["max_tokens"], body["min_tokens"]) == (9, 9)
    assert "return_token_ids" not in body


def test_output_ids_are_kept_of_the_conversations_asked_for_only() -> None:
    with fake_engine() as engine:
        samples = send(engine, closed(one(name="a"), one(name="b")), frozenset({"b"})).samples
    assert [sample.output_ids for sample in samples] == [None, (500, 501, 502, 503, 504)]


def test_exactly_as_many_conversations_are_active_as_declared() -> None:
    held = tuple(one(turn(), turn(), name=f"c{number}") for number in range(12))
    with fake_engine(lambda request: Plan(first_s=0.05)) as engine:
        load = send(engine, closed(*held, active=4))
    assert engine.most == 4
    assert all(sample.ok for sample in load.samples)
    assert [sample.key for sample in load.samples] == [(f"c{n}", index) for n in range(12) for index in range(2)]
    assert engine.connections == 4


def test_the_next_turn_waits_its_think_time() -> None:
    with fake_engine() as engine:
        send(engine, closed(one(turn(), turn(think_s=0.6))))
    first, second = engine.requests
    assert second.at - first.until == pytest.approx(0.6, abs=SLACK_S)


def test_open_loop_requests_go_out_when_they_are_due_however_slow_the_server_is() -> None:
    held = tuple(one(name=f"c{number}", start_s=number * 0.05) for number in range(6))
    with fake_engine(lambda request: Plan(first_s=1.5)) as engine:
        load = send(engine, Workload("test", held, None, 1))
    assert engine.most == 6
    assert [sample.scheduled_s for sample in load.samples] == pytest.approx([number * 0.05 for number in range(6)])
    late = [sample.started_s - sample.scheduled_s for sample in load.samples]
    assert all(0 <= each < SLACK_S for each in late)
    assert load.client.late_p99_s == max(late)


def test_open_loop_times_count_from_when_a_request_was_due_and_not_from_when_it_was_sent() -> None:
    busy = 0.3
    held = tuple(one(name=f"c{number}", start_s=0.0) for number in range(2))

    def slow(endpoint: Endpoint, prompt: Sequence[int] | str, turn: Turn, *, ids: bool) -> bytes:
        time.sleep(busy)
        return request_body(endpoint, prompt, turn, ids=ids)

    with fake_engine() as engine, pytest.MonkeyPatch.context() as patch:
        patch.setattr(own, "request_body", slow)
        load = send(engine, Workload("test", held, None, 1))
    assert all(sample.ttft_s is not None and sample.ttft_s >= busy for sample in load.samples)
    assert all(sample.started_s - sample.scheduled_s >= busy for sample in load.samples)
    assert load.client.late_p99_s is not None
    assert load.client.late_p99_s >= busy
    assert load.client.lag_max_s is not None
    assert load.client.lag_max_s >= busy * 0.8


def test_a_later_turn_in_open_loop_is_due_its_think_time_after_the_answer() -> None:
    with fake_engine() as engine:
        load = send(engine, Workload("test", (one(turn(), turn(think_s=0.6), start_s=0.0),), None, 1))
    first, second = load.samples
    assert second.scheduled_s - (first.scheduled_s + first.e2e_s) == pytest.approx(0.6, abs=SLACK_S)
    assert second.started_s >= second.scheduled_s
    assert second.ttft_s == pytest.approx(0.0, abs=SLACK_S)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (Plan(status=503), "HTTP 503: "),
        (Plan(fault="hang up"), "connection: the server hung up before it answered"),
        (Plan(fault="cut"), "connection: the server hung up in the middle of its answer"),
        (Plan(fault="error"), "the engine died"),
        (Plan(fault="stop"), "short: 2 of 5 tokens, the stream ended"),
        (Plan(fault="nonsense"), "unreadable: TypeError: "),
        (Plan(fault="stall"), "timeout: no end within 1.5 s"),
    ],
)
def test_a_request_that_fails_is_a_sample_and_so_are_the_turns_it_keeps_from_being_sent(plan: Plan, said: str) -> None:
    held = one(turn(), turn(7), turn(2), name="bad")
    after = one(turn(3), name="good")

    def plans(request: Request) -> Plan:
        return plan if len(request.ids) == 4 + 5 + 7 else Plan()

    with fake_engine(plans) as engine:
        load = send(engine, closed(held, after), timeout_s=1.5)
    first, failed, unsent, good = load.samples
    assert first.ok
    assert failed.error is not None
    assert failed.error.startswith(said)
    assert unsent.error == "not sent: turn 1 of the conversation failed"
    assert good.ok


def test_a_server_that_cannot_be_reached_gives_samples_and_no_exception() -> None:
    with fake_engine() as engine:
        pass
    load = send(engine, closed(one(name="a"), one(name="b")))
    assert [sample.error is not None and sample.error.startswith("connection: ") for sample in load.samples] == [
        True
    ] * 2


def test_at_the_deadline_running_requests_are_cut_off_and_the_rest_is_not_sent() -> None:
    held = tuple(one(name=f"c{number}") for number in range(3))
    begun = time.perf_counter()
    with fake_engine(lambda request: Plan(fault="stall")) as engine:
        load = send(engine, closed(*held), deadline_s=0.3)
    assert time.perf_counter() - begun < 5
    assert [sample.error for sample in load.samples] == [
        "deadline: cut off after 0.3 s",
        *["not sent: the deadline of 0.3 s passed"] * 2,
    ]
    assert load.samples[0].output_tokens == 2


def test_a_server_without_token_ids_is_said_to_be_one() -> None:
    with fake_engine(lambda request: Plan(tells_ids=False)) as engine:
        first, second = send(engine, closed(one(turn(), turn()))).samples
    assert first.ok
    assert second.error == "not sent: the server gave no token ids for turn 0"


def test_pieces_that_nobody_counts_are_noted() -> None:
    with fake_engine(lambda request: Plan(piece_tokens=5, counts=False)) as engine:
        load = send(engine, closed(one(turn(output=10))))
    assert load.samples[0].output_tokens == 10
    assert len(load.samples[0].itl_s) == 1
    assert "1 answers came in pieces" in load.notes[0]


def test_a_connection_that_was_closed_while_idle_is_replaced() -> None:
    seen: list[Request] = []

    def plans(request: Request) -> Plan:
        seen.append(request)
        return Plan(fault="hang up") if len(seen) == 2 else Plan()

    with fake_engine(plans) as engine:
        samples = send(engine, closed(one(name="a"), one(name="b"))).samples
    assert all(sample.ok for sample in samples)
    assert len(engine.requests) == 3


def test_a_client_at_rest_shows_little_lag_and_little_use_of_its_core() -> None:
    with fake_engine(lambda request: Plan(first_s=0.5)) as engine:
        client = send(engine, closed(one())).client
    assert client.lag_p50_s is not None
    assert client.lag_p50_s < SLACK_S
    assert client.cpu_share is not None
    assert client.cpu_share < 0.5


def test_a_client_is_saturated_by_its_lag_or_by_its_core() -> None:
    assert not ClientHealth().saturated
    assert not ClientHealth(lag_p99_s=0.005, lag_max_s=0.5, cpu_share=0.5).saturated
    assert ClientHealth(lag_p99_s=0.03).saturated
    assert ClientHealth(cpu_share=0.9).saturated


def test_an_endpoint_that_is_no_url_is_refused() -> None:
    with pytest.raises(BenchError, match="allowed: http://HOST:PORT"):
        OwnDriver().run(Endpoint("localhost:8000", "m"), closed(one()), frozenset(), 1)
