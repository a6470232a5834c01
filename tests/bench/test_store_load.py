"""The client: what it sends, in which order, and that it believes nothing it did not write."""

from __future__ import annotations

import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import islice

import pytest

from kvstrata.bench.load import processes, shares
from kvstrata.bench.resp import Connection, WrongAnswerError, encode
from kvstrata.bench.resp_load import ConnectionJob, ConnectionResult, Job, Values, drive, order

VALUE = 4096


def job(**changes: object) -> Job:
    plain: dict[str, object] = {
        "connections": [ConnectionJob(0, 1, reads=(0, 8), writes=(8, 16))],
        "value_bytes": VALUE,
        "layout": "hash",
        "fields_per_hash": 3,
        "pipeline": 1,
        "seconds": 5.0,
        "seed": 1,
    }
    return Job(**{**plain, **changes})  # type: ignore[arg-type]


@contextmanager
def answers(*chunks: bytes, hold: bool = False) -> Iterator[int]:
    """A server that sends these to its first client, then closes unless it holds."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                for chunk in chunks:
                    peer.sendall(chunk)
                if hold:
                    over.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            thread.join()


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


def test_a_value_arrives_whole_however_the_network_cuts_it() -> None:
    wire = bulk(b"a" * 5000) + bulk(b"\r\n" * 700)
    pieces = [wire[at : at + 37] for at in range(0, len(wire), 37)]
    with answers(*pieces, hold=True) as port, closing(Connection(port, 5000, 5)) as link:
        assert bytes(link.bulk() or b"") == b"a" * 5000
        assert bytes(link.bulk() or b"") == b"\r\n" * 700


def test_many_answers_pass_through_a_buffer_smaller_than_them_together() -> None:
    values = [bytes([65 + n]) * 40_000 for n in range(20)]
    with (
        answers(b"".join(bulk(value) for value in values), hold=True) as port,
        closing(Connection(port, 40_000, 5)) as link,
    ):
        for value in values:
            assert bytes(link.bulk() or b"") == value


@pytest.mark.parametrize(
    ("wire", "error", "message"),
    [
        (b"-ERR no\r\n", WrongAnswerError, "ERR no"),
        (b"+OK\r\n", WrongAnswerError, "expected a value"),
        (b"$9999999\r\n", WrongAnswerError, "9999999 bytes where at most"),
        (b"$10\r\nabc", ConnectionError, "closed the connection"),
        (b"", ConnectionError, "closed the connection"),
    ],
)
def test_what_is_no_value_is_an_error(wire: bytes, error: type[Exception], message: str) -> None:
    with answers(wire) as port, closing(Connection(port, 4096, 5)) as link, pytest.raises(error, match=message):
        link.bulk()


def test_a_silent_server_is_an_error_after_the_deadline() -> None:
    late = pytest.raises(TimeoutError, match=r"no answer within 0\.2 s")
    with answers(hold=True) as port, closing(Connection(port, 4096, 0.2)) as link, late:
        link.bulk()


def test_a_missing_value_is_none() -> None:
    with answers(b"$-1\r\n", hold=True) as port, closing(Connection(port, 4096, 5)) as link:
        assert link.bulk() is None


def test_commands_understand_every_answer() -> None:
    wire = b"+PONG\r\n:3\r\n$2\r\nhi\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n"
    with answers(wire, hold=True) as port, closing(Connection(port, 4096, 5)) as link:
        assert [link.command("X") for _ in range(4)] == ["PONG", "3", "hi", ["a", "b"]]


def test_values_are_the_same_in_every_process_and_differ_from_each_other() -> None:
    ours, theirs = Values(job()), Values(job())
    assert ours.value(1, 2) == theirs.value(1, 2)
    seen = {bytes(ours.value(connection, number)) for connection in range(4) for number in range(50)}
    assert len(seen) == 200
    assert ours.value(0, 0) != Values(job(seed=2)).value(0, 0)


def test_values_do_not_compress() -> None:
    assert len(zlib.compress(bytes(Values(job()).value(0, 1)))) >= VALUE


def test_requests_address_the_fields_of_hashes_or_whole_keys() -> None:
    in_hash, alone = Values(job()), Values(job(layout="string"))
    assert in_hash.read(5, 7) == encode([b"HGET", b"bench:5:2", b"1"])
    assert alone.read(5, 7) == encode([b"GET", b"bench:5:7"])
    whole = encode([b"HSET", b"bench:5:2", b"1", bytes(in_hash.value(5, 7))])
    assert b"".join(in_hash.write(5, 7)) == whole
    assert b"".join(alone.write(5, 7)) == encode([b"SET", b"bench:5:7", bytes(alone.value(5, 7))])


def spoil(at: int) -> Callable[[bytes], bytes]:
    return lambda value: value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]


@pytest.mark.parametrize("change", [spoil(0), spoil(VALUE // 2), spoil(VALUE - 1), lambda value: value[:-1]])
def test_another_value_than_was_written_is_an_error(change: Callable[[bytes], bytes]) -> None:
    values = Values(job())
    right = bytes(values.value(0, 1))
    values.check(0, 1, memoryview(right))
    with pytest.raises(WrongAnswerError, match="value 1 of connection 0 is not what was written"):
        values.check(0, 1, memoryview(change(right)))


def test_reads_are_every_value_once_and_not_in_order() -> None:
    plan = ConnectionJob(0, 1, reads=(0, 100))
    numbers = [number for is_read, number in order(job(read_share=1.0), plan) if is_read]
    assert sorted(numbers) == list(range(100))
    assert numbers != sorted(numbers)


def test_a_pass_cut_short_is_the_beginning_of_a_whole_one() -> None:
    whole = ConnectionJob(3, 1, reads=(0, 100))
    cut = ConnectionJob(3, 1, reads=(0, 100), limit=10)
    assert list(order(job(read_share=1.0), cut)) == list(islice(order(job(read_share=1.0), whole), 10))


def test_writes_are_in_order() -> None:
    assert list(order(job(), ConnectionJob(0, 1, reads=(0, 4), writes=(4, 7)))) == [(False, n) for n in (4, 5, 6)]


def test_a_mix_keeps_its_share_until_its_end() -> None:
    turns = [
        is_read for is_read, _ in order(job(read_share=0.7), ConnectionJob(0, 1, reads=(0, 700), writes=(700, 1700)))
    ]
    assert 0.6 < sum(turns) / len(turns) < 0.8
    assert sum(turns) == 700


def run_against(wire: bytes, **changes: object) -> ConnectionResult:
    with answers(wire, hold=True) as port, closing(Connection(port, VALUE, 1)) as link:
        start = threading.Event()
        start.set()
        work = job(**changes)
        return drive(work, work.connections[0], Values(work), link, start)


def test_every_answer_counts_once_with_its_latency() -> None:
    result = run_against(b":1\r\n" * 8, pipeline=3)
    assert (result.written, result.read, result.error) == (8, 0, "")
    assert len(result.latencies_us) == 8
    assert result.ended > result.began


def test_an_error_answer_ends_the_connection_and_is_told() -> None:
    result = run_against(b":1\r\n-ERR write command not allowed when reached max-db-size.\r\n")
    assert result.written == 1
    assert result.error.startswith("WrongAnswerError: -ERR write command not allowed")


def test_time_ends_the_load_after_a_whole_batch() -> None:
    result = run_against(b":1\r\n" * 8, seconds=0.0, pipeline=2)
    assert (result.written, result.error) == (2, "")


def test_a_job_survives_its_journey_to_the_worker() -> None:
    assert Job.from_json(job(connections=[ConnectionJob(1, 2, (3, 4), (5, 6), 7)]).to_json()) == job(
        connections=[ConnectionJob(1, 2, (3, 4), (5, 6), 7)]
    )


@pytest.mark.parametrize(("values", "connections"), [(8, 8), (9, 8), (1000, 7), (5, 1)])
def test_connections_share_the_values_evenly(values: int, connections: int) -> None:
    parts = shares(values, connections)
    sizes = [high - low for low, high in parts]
    assert sum(sizes) == values
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("connections", "cores", "count"), [(8, 2, 1), (8, 16, 8), (1, 16, 1), (64, 16, 8), (8, 1, 1)])
def test_half_of_the_cores_is_the_servers(connections: int, cores: int, count: int) -> None:
    assert processes(connections, cores) == count
