from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kvstrata.l2 import lane as lanes
from kvstrata.l2.config import EndpointConfig
from kvstrata.l2.lane import Job
from kvstrata.l2.pool import Call, Endpoint
from kvstrata.l2.wire import Connection, command
from tests.l2.scripted import Peer, answering, commands

STALL_S = 0.4
PATIENCE_S = 10.0


class Ask(Job):
    """Sends one word, and keeps what comes back."""

    def __init__(self, word: bytes = b"ASK", seconds: float = PATIENCE_S, cost: int = 0) -> None:
        self.word = word
        self.deadline = time.monotonic() + seconds
        self.cost = cost
        self.outcome: object = None
        self.ended = 0
        self.over = threading.Event()

    def start(self, connection: Connection) -> None:
        connection.send([command(self.word)])

    def finish(self, connection: Connection) -> None:
        self._end(connection.read())

    def failed(self, reason: str) -> None:
        self._end(f"failed: {reason}")

    def _end(self, outcome: object) -> None:
        self.outcome = outcome
        self.ended += 1
        self.over.set()

    @property
    def result(self) -> object:
        assert self.over.wait(PATIENCE_S), "the job never ended"
        assert self.ended == 1
        return self.outcome


Make = Callable[..., Endpoint]


@pytest.fixture
def endpoint() -> Iterator[Make]:
    """Make endpoints of what a Peer is told to do; both are closed at the end."""
    made: list[tuple[Endpoint, Peer]] = []

    def make(
        talk: Callable[[socket.socket], object],
        workers: int = 1,
        depth: int = 1,
        limit: int = 0,
        **config: Any,
    ) -> Endpoint:
        peer = Peer(talk).__enter__()
        config = {"host": "127.0.0.1", "port": peer.address[1], "capacity_bytes": 1, **config}
        made.append((Endpoint(EndpointConfig(**config), 1.0, STALL_S, (workers, depth), workers, limit), peer))
        return made[-1][0]

    yield make
    for each, peer in made:
        peer.stopping.set()
        each.close(PATIENCE_S)
        peer.__exit__(None, None, None)


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def noting(seen: list[bytes], reply: bytes | None = b":1\r\n") -> Callable[[list[bytes]], bytes | None]:
    """Answer everything with `reply`, and note what it was."""

    def answer(words: list[bytes]) -> bytes | None:
        seen.append(b" ".join(words))
        return reply

    return answer


def ok(_words: list[bytes]) -> bytes:
    return b":1\r\n"


# -- workers and queues ------------------------------------------------------------------------------


def test_a_burst_uses_all_workers_though_one_of_them_is_idle(endpoint: Make) -> None:
    together = threading.Barrier(4, timeout=5)

    def answer(words: list[bytes]) -> bytes:
        if words == [b"TOGETHER"]:
            together.wait()
        return b":1\r\n"

    one = endpoint(answering(answer), workers=4)
    first = Ask()
    one.load.submit(first)
    assert first.result == 1
    assert until(lambda: one.load._idle == 1)
    burst = [Ask(b"TOGETHER") for _ in range(4)]
    for job in burst:
        one.load.submit(job)
    assert [job.result for job in burst] == [1] * 4


def test_a_worker_keeps_as_many_requests_under_way_as_the_depth_allows(endpoint: Make) -> None:
    most: list[int] = []

    def talk(side: socket.socket) -> None:
        waiting = 0
        for words in commands(side):
            if words == [b"PING"]:
                side.sendall(b"+PONG\r\n")
                continue
            waiting += 1
            if waiting == 3:
                most.append(waiting)
                side.sendall(b":1\r\n:2\r\n:3\r\n")
                waiting = 0

    one = endpoint(talk, depth=3)
    gate = threading.Lock()
    with gate:
        jobs = [Ask() for _ in range(6)]
        with one.load._condition:
            for job in jobs:
                one.load.submit(job)
    assert [job.result for job in jobs] == [1, 2, 3, 1, 2, 3]
    assert most == [3, 3]


def test_a_wake_up_for_a_worker_does_not_go_to_those_who_wait_for_quiet(endpoint: Make) -> None:
    release = threading.Event()

    def answer(words: list[bytes]) -> bytes:
        if words == [b"LONG"]:
            release.wait(PATIENCE_S)
        return b":1\r\n"

    one = endpoint(answering(answer), workers=2)
    one.load._stall_s = PATIENCE_S
    long, middle = Ask(b"LONG"), Ask(b"LONG2")
    one.load.submit(long)
    assert until(lambda: one.load._active == 1)
    waiter = threading.Thread(target=one.load.wait_idle, args=(PATIENCE_S,))
    waiter.start()
    assert until(lambda: len(one.load._quiet._waiters) == 1)  # type: ignore[attr-defined]
    one.load.submit(middle)
    assert middle.result == 1
    assert until(lambda: one.load._idle == 1)
    last = Ask()
    one.load.submit(last)
    assert last.result == 1, "though the other worker is busy"
    assert long.outcome is None
    release.set()
    assert long.result == 1
    waiter.join(PATIENCE_S)
    assert not waiter.is_alive()


def test_waiting_for_quiet_ends_with_its_time(endpoint: Make) -> None:
    release = threading.Event()
    one = endpoint(answering(lambda _: b":1\r\n" if release.wait(PATIENCE_S) else None))
    one.load._stall_s = PATIENCE_S
    job = Ask()
    one.load.submit(job)
    started = time.monotonic()
    one.load.wait_idle(0.1)
    assert 0.1 <= time.monotonic() - started < 2
    release.set()
    assert job.result == 1
    one.load.wait_idle(PATIENCE_S)
    assert not one.load.busy


def test_a_full_queue_refuses_but_an_empty_one_takes_a_job_of_any_size(endpoint: Make) -> None:
    release = threading.Event()
    one = endpoint(answering(lambda _: b":1\r\n" if release.wait(PATIENCE_S) else None), limit=100)
    under_way = Ask(cost=1000)
    one.store.submit(under_way)
    assert until(lambda: one.store._active == 1)
    assert one.store.queued_bytes == 0
    waiting, fits, late = Ask(cost=60), Ask(cost=40), Ask(cost=1)
    for job in (waiting, fits, late):
        one.store.submit(job)
    assert late.result == "failed: queue_full"
    assert one.store.queued_bytes == 100
    release.set()
    assert (under_way.result, waiting.result, fits.result) == (1, 1, 1)
    assert one.store.queued_bytes == 0
    big = Ask(cost=10**9)
    one.store.submit(big)
    assert big.result == 1


def test_an_idle_worker_ends_by_itself_and_work_starts_another(endpoint: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_IDLE_S", 0.05)
    one = endpoint(answering(ok), workers=2)
    for _ in range(3):
        job = Ask()
        one.load.submit(job)
        assert job.result == 1
        assert until(lambda: one.load._threads == 0)


# -- deadlines ---------------------------------------------------------------------------------------


def test_a_job_that_is_too_late_is_not_begun_and_says_nothing_about_the_endpoint(endpoint: Make) -> None:
    seen: list[bytes] = []
    one = endpoint(answering(noting(seen)))
    late, good = Ask(b"LATE", seconds=-1), Ask(b"GOOD")
    with one.load._condition:
        one.load.submit(late)
        one.load.submit(good)
    assert late.result == "failed: deadline"
    assert good.result == 1
    assert seen == [b"GOOD"]
    assert one.breaker.closed
    assert one.counters["timeouts"] == 0
    assert until(lambda: not one.load.busy)


def test_a_job_that_begins_with_little_time_left_does_not_cost_the_endpoint_its_name(endpoint: Make) -> None:
    def answer(words: list[bytes]) -> bytes:
        if words == [b"SLOW"]:
            time.sleep(0.3)
        return b":1\r\n"

    one = endpoint(answering(answer))
    hurried = Ask(b"SLOW", seconds=0.1)
    one.load.submit(hurried)
    assert hurried.result == "failed: deadline"
    assert one.breaker.closed
    patient = Ask(b"SLOW")
    one.load.submit(patient)
    assert patient.result == 1


def test_a_late_request_does_not_take_those_behind_it_along(endpoint: Make) -> None:
    def answer(words: list[bytes]) -> bytes:
        if words == [b"SLOW"]:
            time.sleep(0.25)
        return b":1\r\n"

    one = endpoint(answering(answer), depth=4)
    hurried, others = Ask(b"SLOW", seconds=0.1), [Ask() for _ in range(3)]
    with one.load._condition:
        for job in (hurried, *others):
            one.load.submit(job)
    assert hurried.result == "failed: deadline"
    assert [job.result for job in others] == [1, 1, 1]


def test_what_waits_behind_a_hanging_request_is_failed_in_time(endpoint: Make) -> None:
    one = endpoint(lambda side: [side.sendall(b"+PONG\r\n"), side.recv(100), side.recv(100), side.recv(100)])
    one.load._stall_s = PATIENCE_S
    hanging, waiting = Ask(seconds=1.5), Ask(seconds=0.2)
    one.load.submit(hanging)
    assert until(lambda: one.load._active == 1)
    one.load.submit(waiting)
    started = time.monotonic()
    while not waiting.over.wait(0.05):
        one.sweep()
    assert waiting.result == "failed: deadline"
    assert time.monotonic() - started < 1
    assert hanging.result == "failed: deadline"


# -- lost connections --------------------------------------------------------------------------------


def test_a_closed_connection_costs_a_second_try_not_the_request(endpoint: Make) -> None:
    tries: list[bytes] = []

    def answer(words: list[bytes]) -> bytes | None:
        tries.append(words[0])
        return None if len(tries) == 1 else b":1\r\n"

    one = endpoint(answering(answer), depth=3)
    jobs = [Ask(b"%d" % n) for n in range(3)]
    with one.load._condition:
        for job in jobs:
            one.load.submit(job)
    assert [job.result for job in jobs] == [1, 1, 1]
    assert tries[-3:] == [b"0", b"1", b"2"], "in their order"
    assert one.counters["connection_errors"] == 1
    assert one.breaker.closed


def test_a_request_that_always_loses_its_connection_is_tried_twice(endpoint: Make) -> None:
    tries: list[bytes] = []
    one = endpoint(answering(noting(tries, None)))
    job = Ask()
    one.load.submit(job)
    assert job.result == "failed: connection"
    assert len(tries) == 2


def test_an_idle_connection_that_was_closed_is_replaced_without_a_fault(endpoint: Make) -> None:
    closing = threading.Event()
    closed = threading.Event()

    def talk(side: socket.socket) -> None:
        for words in commands(side):
            side.sendall(b"+PONG\r\n" if words == [b"PING"] else b":1\r\n")
            if words == [b"ONCE"]:
                closing.wait(PATIENCE_S)
                side.shutdown(socket.SHUT_RDWR)
                closed.set()
                return

    one = endpoint(talk)
    first, second = Ask(b"ONCE"), Ask()
    one.load.submit(first)
    assert first.result == 1
    assert until(lambda: one.load._idle == 1)
    closing.set()
    assert closed.wait(PATIENCE_S)
    one.load.submit(second)
    assert second.result == 1
    assert one.counters.report() == {}


# -- an endpoint that is left alone ------------------------------------------------------------------


def test_an_endpoint_that_falls_silent_is_left_alone_at_once_and_comes_back_by_itself(endpoint: Make) -> None:
    answers = threading.Event()

    def talk(side: socket.socket) -> None:
        for words in commands(side):
            if words != [b"PING"] or answers.is_set():
                answers.wait(PATIENCE_S)
            side.sendall(b":1\r\n")

    one = endpoint(talk, workers=1)
    hanging, behind = Ask(), Ask()
    one.load.submit(hanging)
    assert until(lambda: one.load._active == 1)
    one.load.submit(behind)
    started = time.monotonic()
    assert hanging.result == "failed: deadline"
    assert behind.result == "failed: unavailable"
    assert STALL_S <= time.monotonic() - started + 0.1 < STALL_S + 1
    refused = Ask()
    one.load.submit(refused)
    assert refused.result == "failed: unavailable"
    assert not one.takes_writes
    answers.set()
    assert until(lambda: one.breaker.closed)
    again = Ask()
    one.load.submit(again)
    assert again.result == 1
    assert one.breaker.opened == 1


def silent_for(words_without_answer: int, silent: bytes = b"SILENT") -> Callable[[socket.socket], None]:
    """Answer all commands but the first so many that are `silent`; their connections stay open and say nothing more."""
    asked: list[bytes] = []

    def talk(side: socket.socket) -> None:
        for words in commands(side):
            if words == [silent]:
                asked.append(silent)
                if len(asked) <= words_without_answer:
                    side.recv(1)  # until the other side gives up
                    return
            side.sendall(b"+PONG\r\n" if words == [b"PING"] else b":1\r\n")

    return talk


@pytest.mark.parametrize(
    ("unanswered", "outcome", "opened"), [(1, 1, 0), (2, "failed: deadline", 1)], ids=["once", "twice"]
)
def test_a_connection_that_falls_silent_while_others_answer_costs_a_second_try(
    endpoint: Make, unanswered: int, outcome: object, opened: int
) -> None:
    one = endpoint(silent_for(unanswered), workers=2)
    silent = Ask(b"SILENT")
    one.load.submit(silent)
    assert until(lambda: one.load._active == 1)
    while not silent.over.is_set():
        other = Ask()
        one.load.submit(other)
        assert other.over.wait(PATIENCE_S)
    assert silent.result == outcome
    assert one.breaker.opened == opened
    assert one.counters["timeouts"] == unanswered


def test_an_endpoint_that_refuses_connections_is_left_alone_at_once_until_it_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    one = Endpoint(EndpointConfig("127.0.0.1", port, 1), 1.0, STALL_S, (1, 1), 1, 0)
    job = Ask()
    one.load.submit(job)
    assert job.result == "failed: connection"
    assert not one.breaker.closed
    assert "refused" in one.breaker.reason
    with socket.socket() as late:
        late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        late.bind(("127.0.0.1", port))
        late.listen()
        late.settimeout(PATIENCE_S)
        side, _ = late.accept()
        with side:
            side.recv(100)
            side.sendall(b"+PONG\r\n")
            assert until(lambda: one.breaker.closed)
    one.close(PATIENCE_S)


def test_a_refused_password_is_told_without_showing_it_and_tried_again(endpoint: Make) -> None:
    secret, said, right = "Tr0ub4dor&3", [], threading.Event()

    def answer(words: list[bytes]) -> bytes:
        said.append(words)
        if words[0] == b"AUTH" and not right.is_set():
            return b"-WRONGPASS invalid username-password pair\r\n"
        return b"+OK\r\n"

    one = endpoint(answering(answer), user="kvs", password=secret)
    job = Ask()
    one.load.submit(job)
    assert job.result == "failed: connection"
    assert not one.breaker.closed
    assert "WRONGPASS" in one.breaker.reason
    assert secret not in one.breaker.reason
    assert said[0] == [b"AUTH", b"kvs", secret.encode()]
    right.set()
    assert until(lambda: one.breaker.closed)


def test_a_password_without_a_user_is_sent_alone_and_none_not_at_all(endpoint: Make) -> None:
    for config, sent in (({"password": "p"}, [b"AUTH p"]), ({}, [])):
        said: list[bytes] = []
        one = endpoint(answering(noting(said)), **config)
        job = Ask()
        one.load.submit(job)
        assert job.result == 1
        assert said[:-1] == sent


def test_a_store_that_still_loads_its_data_is_asked_again_until_it_is_ready(endpoint: Make) -> None:
    ready = threading.Event()

    def talk(side: socket.socket) -> None:
        for _ in commands(side):
            side.sendall(b"+PONG\r\n" if ready.is_set() else b"-LOADING Redis is loading the dataset in memory\r\n")

    one = endpoint(talk)
    job = Ask()
    one.load.submit(job)
    assert job.result == "failed: connection"
    assert not one.breaker.closed
    ready.set()
    assert until(lambda: one.breaker.closed)


def test_a_certificate_that_is_missing_is_a_failed_connection(endpoint: Make) -> None:
    one = endpoint(answering(ok), tls_ca="/nowhere/ca.pem")
    job = Ask()
    one.load.submit(job)
    assert job.result == "failed: connection"
    assert "tls_ca /nowhere/ca.pem" in one.breaker.reason


# -- faults of our own -------------------------------------------------------------------------------


class Broken(Ask):
    def finish(self, connection: Connection) -> None:
        connection.read()
        raise ZeroDivisionError("a fault of ours")


class Worse(Ask):
    def failed(self, reason: str) -> None:
        super().failed(reason)
        raise ZeroDivisionError("a callback's fault")


def test_a_fault_in_a_job_costs_the_jobs_on_its_connection_and_nothing_else(endpoint: Make) -> None:
    one = endpoint(answering(ok), depth=3)
    jobs = [Broken(), Ask()]
    with one.load._condition:
        for job in jobs:
            one.load.submit(job)
    assert [job.result for job in jobs] == ["failed: internal_error"] * 2
    assert "a fault of ours" in one.fault
    assert one.breaker.closed
    after = Ask()
    one.load.submit(after)
    assert after.result == 1
    assert until(lambda: not one.load.busy)


def test_a_callback_that_fails_costs_no_worker(endpoint: Make) -> None:
    one = endpoint(answering(lambda words: None if words == [b"CLOSE"] else b":1\r\n"), depth=3)
    for _ in range(2):
        jobs = [Worse(b"CLOSE"), Worse(seconds=-1), Ask()]
        with one.load._condition:
            for job in jobs:
                one.load.submit(job)
        assert jobs[0].result == "failed: connection"
        assert jobs[1].result == "failed: deadline"
        assert jobs[2].result in (1, "failed: connection")
        assert until(lambda: one.breaker.closed)
    assert until(lambda: not one.load.busy)
    assert one.counters["internal_errors"] == 4


def test_a_call_hands_its_replies_over_once_even_when_the_callback_fails(endpoint: Make) -> None:
    handed: list[object] = []

    def done(replies: list[object] | None) -> None:
        handed.append(replies)
        raise ZeroDivisionError

    one = endpoint(answering(ok))
    one.control.submit(Call(one, [command(b"A"), command(b"B")], time.monotonic() + PATIENCE_S, done))
    assert until(lambda: not one.control.busy)
    assert handed == [[1, 1]]


# -- the end -----------------------------------------------------------------------------------------


def test_closing_fails_what_waits_and_awaits_what_is_under_way(endpoint: Make) -> None:
    release = threading.Event()
    one = endpoint(answering(lambda _: b":1\r\n" if release.wait(PATIENCE_S) else None))
    one.load._stall_s = PATIENCE_S
    under_way, waiting, late = Ask(), Ask(), Ask()
    one.load.submit(under_way)
    assert until(lambda: one.load._active == 1)
    one.load.submit(waiting)
    closing = threading.Thread(target=one.close, args=(PATIENCE_S,))
    closing.start()
    assert waiting.result == "failed: closed"
    one.load.submit(late)
    assert late.result == "failed: closed"
    assert closing.is_alive()
    assert under_way.outcome is None
    release.set()
    assert under_way.result == 1
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    assert one.load._threads == 0


def test_closing_ends_the_search_for_an_endpoint_that_is_gone() -> None:
    one = Endpoint(EndpointConfig("127.0.0.1", 1, 1), 1.0, STALL_S, (1, 1), 1, 0)
    job = Ask()
    one.load.submit(job)
    assert job.result == "failed: connection"
    one.close(PATIENCE_S)
    assert until(lambda: not any(thread.name == "l2-probe-1" for thread in threading.enumerate()))
