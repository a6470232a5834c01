from __future__ import annotations

import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvstrata.l2.wire import Connection, DeadlineError, Reply, ReplyError, WireError, command, command_with
from tests.l2.scripted import STALL_S, Peer, bulk, dribble, pair, pattern

VALUE = bytes(range(256)) * 40
CANARY = b"\xa5" * 64


class Room:
    """A buffer between canaries."""

    def __init__(self, size: int) -> None:
        self._all = bytearray(CANARY + b"\0" * size + CANARY)
        self.view = memoryview(self._all)[len(CANARY) : len(CANARY) + size]

    @property
    def untouched_around(self) -> bool:
        return self._all.startswith(CANARY) and self._all.endswith(CANARY)


def within(connection: Connection, seconds: float) -> Connection:
    connection.deadline = time.monotonic() + seconds
    return connection


# -- commands ----------------------------------------------------------------------------------------


def test_a_command_is_an_array_of_bulk_strings_and_counts_bytes_not_characters() -> None:
    assert command(b"SET", "schlüssel", 7) == "*3\r\n$3\r\nSET\r\n$10\r\nschlüssel\r\n$1\r\n7\r\n".encode()


@given(st.binary(max_size=300), st.lists(st.binary(max_size=9), max_size=4))
def test_a_payload_not_copied_makes_the_same_command(payload: bytes, words: list[bytes]) -> None:
    assert b"".join(command_with(payload, *words)) == command(*words, payload)


def test_the_payload_itself_is_sent_not_a_copy() -> None:
    payload = memoryview(bytearray(b"abc"))
    assert command_with(payload, b"HSET")[1] is payload


# -- replies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        (b"+OK\r\n", b"OK"),
        (b"+\r\n", b""),
        (b":0\r\n", 0),
        (b":-9223372036854775808\r\n", -(1 << 63)),
        (b"$-1\r\n", None),
        (b"$0\r\n\r\n", b""),
        (bulk(b"\r\n$3\r\n"), b"\r\n$3\r\n"),
        (bulk(VALUE * 30), VALUE * 30),
        (b"*-1\r\n", None),
        (b"*0\r\n", []),
        (b"*3\r\n:1\r\n$-1\r\n*1\r\n+a\r\n", [1, None, [b"a"]]),
    ],
)
def test_every_type_of_reply_is_read(said: bytes, reply: Reply) -> None:
    with pair(said + b":77\r\n") as (connection, _):
        assert connection.read() == reply
        assert connection.read() == 77


def test_an_error_reply_is_a_value_of_read_also_within_an_array_and_raised_by_call() -> None:
    with pair(b"-ERR no\r\n*1\r\n-IN it\r\n-WRONG \xff\r\n") as (connection, _):
        assert str(connection.read()) == "ERR no"
        inner = connection.read()
        assert isinstance(inner, list)
        assert isinstance(inner[0], ReplyError)
        with pytest.raises(ReplyError, match="WRONG"):
            connection.call(b"X")


def test_pipelined_replies_come_in_order_with_errors_among_them() -> None:
    with pair(b"+a\r\n-no\r\n:3\r\n") as (connection, other):
        first, second, third = connection.pipeline([command(b"A"), command(b"B"), command(b"C")])
        assert (first, str(second), third) == (b"a", "no", 3)
        assert other.recv(1 << 16) == command(b"A") + command(b"B") + command(b"C")


@pytest.mark.parametrize(
    "said",
    [
        b"hello\r\n",
        b"\r\n",
        b"%1\r\n",
        b":\r\n",
        b":1_0\r\n",
        b": 1\r\n",
        b":1.5\r\n",
        b":--1\r\n",
        b":-\r\n",
        b":999999999999999999999\r\n",
        b"$-2\r\n",
        b"$3\r\nabcd\r\n",
        b"$536870913\r\n",
        b"*-2\r\n",
        b"*1048577\r\n",
        b"*1\r\n" * 10,
    ],
)
def test_what_is_not_resp_ends_the_connection(said: bytes) -> None:
    with pair(said) as (connection, _), pytest.raises(WireError, match="not RESP"):
        within(connection, 2).read()


def test_a_line_without_an_end_is_given_up_before_it_fills_the_memory() -> None:
    def talk(side: socket.socket) -> None:
        while True:
            side.sendall(b"+" + b"x" * 65536)

    with Peer(talk) as peer:
        connection = within(Connection(peer.address, 5, STALL_S), 5)
        with pytest.raises(WireError, match="a line without an end"):
            connection.read()
        assert len(connection._buffer) < 1 << 18
        connection.close()


def test_nesting_is_read_to_eight_levels() -> None:
    with pair(b"*1\r\n" * 8 + b":1\r\n") as (connection, _):
        reply = connection.read()
        for _ in range(8):
            assert isinstance(reply, list)
            reply = reply[0]
        assert reply == 1


def test_memory_follows_the_bytes_that_came_not_those_announced() -> None:
    with pair(b"$536870912\r\n" + b"x" * 100_000) as (connection, other):
        other.shutdown(socket.SHUT_WR)
        tracemalloc.start()
        try:
            with pytest.raises(WireError, match="closed"):
                within(connection, 5).read()
            assert tracemalloc.get_traced_memory()[1] < 2 << 20
        finally:
            tracemalloc.stop()


def test_a_value_of_another_size_is_passed_over_without_being_held() -> None:
    size = 8 << 20
    with Peer(lambda side: side.sendall(b"$%d\r\n" % size + b"x" * size + b"\r\n:5\r\n")) as peer:
        connection = within(Connection(peer.address, 5, STALL_S), 10)
        tracemalloc.start()
        try:
            tracemalloc.reset_peak()
            with pytest.raises(ReplyError, match=f"a value of {size} bytes, expected 100"):
                connection.read_into(memoryview(bytearray(100)))
            assert connection.read() == 5
        finally:
            tracemalloc.stop()
            connection.close()


# -- straight into the buffer ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 9, 10, 4095, 65536, 1 << 20])
def test_a_value_of_any_size_lands_in_its_place_and_nowhere_else(size: int) -> None:
    value = pattern(size)
    with Peer(lambda side: side.sendall(bulk(value) * 2 + b":1\r\n")) as peer:
        connection = within(Connection(peer.address, 5, STALL_S), 10)
        for _ in range(2):
            room = Room(size)
            assert connection.read_into(room.view) is True
            assert room.view == value
            assert room.untouched_around
        assert connection.read() == 1
        connection.close()


@pytest.mark.parametrize("cut", range(len(bulk(b"0123456789")) + 1))
def test_a_value_split_anywhere_is_put_together(cut: int) -> None:
    said = bulk(b"0123456789") + b":1\r\n"
    for splits in ([cut], [cut, 1], [1] * cut, [cut, len(said) - cut]):
        with pair(said, splits) as (connection, _):
            room = Room(10)
            assert connection.read_into(room.view) is True
            assert bytes(room.view) == b"0123456789"
            assert room.untouched_around
            assert connection.read() == 1


OTHERS: list[tuple[bytes, bool | type[Exception]]] = [
    (b"$-1\r\n", False),
    (b"-ERR no\r\n", ReplyError),
    (b"-" + b"long " * 500 + b"\r\n", ReplyError),
    (bulk(b""), ReplyError),
    (bulk(b"012345678"), ReplyError),
    (bulk(b"0123456789a"), ReplyError),
    (bulk(b"x" * 100), ReplyError),
    (bulk(b"x" * 200_000), ReplyError),
]


@pytest.mark.parametrize(("said", "outcome"), OTHERS)
@pytest.mark.parametrize("splits", [[], [1] * 300, [2, 1, 5], [3], [4], [5], [6], [20]])
def test_another_reply_than_the_value_leaves_the_connection_in_order(
    said: bytes, outcome: bool | type[Exception], splits: list[int]
) -> None:
    with pair(said + bulk(b"0123456789") + b":1\r\n", splits) as (connection, _):
        room = Room(10)
        if outcome is False:
            assert connection.read_into(room.view) is False
        else:
            with pytest.raises(ReplyError):
                connection.read_into(room.view)
        assert connection.read_into(room.view) is True
        assert bytes(room.view) == b"0123456789"
        assert connection.read() == 1
        assert room.untouched_around


def test_values_after_a_reply_read_ahead_are_taken_from_what_was_read() -> None:
    values = [pattern(1000 * n) for n in range(1, 6)]
    with pair(b"+first\r\n" + b"".join(map(bulk, values)) + b"+last\r\n", [7000]) as (connection, _):
        assert connection.read() == b"first"
        for value in values:
            room = Room(len(value))
            assert connection.read_into(room.view) is True
            assert room.view == value
            assert room.untouched_around
        assert connection.read() == b"last"


@pytest.mark.parametrize("said", [b":1\r\n", b"+OK\r\n", b"*0\r\n", b"nonsense\r\n"])
def test_a_reply_that_is_no_bulk_ends_the_connection(said: bytes) -> None:
    with pair(said) as (connection, _), pytest.raises(WireError, match="not a bulk reply"):
        within(connection, 2).read_into(memoryview(bytearray(10)))


@pytest.mark.parametrize("splits", [[], [3, 1]])
def test_a_value_that_does_not_end_where_it_must_ends_the_connection(splits: list[int]) -> None:
    with pair(b"$10\r\n0123456789ab\r\n", splits) as (connection, _), pytest.raises(WireError, match="without its end"):
        within(connection, 2).read_into(memoryview(bytearray(10)))


@pytest.mark.parametrize("kept", [0, 1, 3, 5, 9, 15, 16])
def test_a_connection_closed_in_mid_value_is_noticed_at_once(kept: int) -> None:
    with pair(bulk(b"0123456789")[:kept]) as (connection, other):
        other.close()
        started = time.monotonic()
        with pytest.raises(WireError, match="receive"):
            within(connection, 20).read_into(memoryview(bytearray(10)))
        assert time.monotonic() - started < STALL_S


def test_a_reset_connection_is_noticed() -> None:
    with pair() as (connection, other):
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        other.close()
        with pytest.raises(WireError, match=r"receive: .*reset"):
            within(connection, 5).read_into(memoryview(bytearray(10)))
        with pytest.raises(WireError, match="send"):
            connection.send([b"x" * 100_000])


def test_the_wait_for_the_first_byte_is_told_apart_from_the_transfer() -> None:
    def talk(side: socket.socket) -> None:
        side.recv(1000)
        time.sleep(0.15)
        side.sendall(b"$10\r\n01234")
        time.sleep(0.15)
        side.sendall(b"56789\r\n")

    for ahead in (False, True):
        with Peer(talk) as peer:
            connection = within(Connection(peer.address, 5, 2), 5)
            if ahead:  # the general way, as with TLS
                connection._plain = False
            connection.send([b"go"])
            assert connection.read_into(memoryview(bytearray(10)))
            assert 0.1 < connection.waited_s < 0.25
            connection.close()


# -- deadlines ---------------------------------------------------------------------------------------

Reading = Callable[[Connection], object]
READINGS: dict[str, Reading] = {
    "read": lambda connection: connection.read(),
    "read_into": lambda connection: connection.read_into(memoryview(bytearray(10_000))),
    "call": lambda connection: connection.call(b"PING"),
}


@pytest.fixture(params=READINGS)
def reading(request: pytest.FixtureRequest) -> Reading:
    return READINGS[request.param]


def ends_late(work: Callable[[], object]) -> tuple[float, DeadlineError]:
    started = time.monotonic()
    with pytest.raises(DeadlineError) as caught:
        work()
    return time.monotonic() - started, caught.value


@pytest.mark.parametrize(
    "said", [b"", b"$", b"$10000\r\n", b"$10000\r\n" + b"x" * 9_999, b"$10000\r\n" + b"x" * 10_001]
)
def test_a_server_that_falls_silent_costs_the_stall_time(reading: Reading, said: bytes) -> None:
    with pair(said) as (connection, _):
        took, error = ends_late(lambda: reading(within(connection, 20)))
        assert STALL_S <= took < STALL_S + 1
        assert error.silent_s >= STALL_S


def test_the_deadline_ends_a_wait_before_the_stall_time(reading: Reading) -> None:
    with pair(b"$10000\r\n") as (connection, _):
        connection.stall_s = 20
        took, _ = ends_late(lambda: reading(within(connection, 0.3)))
        assert 0.3 <= took < 1.3


def test_a_server_that_dribbles_does_not_outlive_the_deadline(reading: Reading) -> None:
    stopping = threading.Event()
    with Peer(dribble(b"$10000\r\n" + b"x" * 10_000, 0.02, stopping)) as peer:
        connection = within(Connection(peer.address, 5, 20), 0.5)
        try:
            took, error = ends_late(lambda: reading(connection))
        finally:
            stopping.set()
        assert 0.5 <= took < 1.5
        assert error.silent_s < 0.5
        connection.close()


def test_a_flood_of_valid_nonsense_does_not_outlive_the_deadline() -> None:
    def talk(side: socket.socket) -> None:
        while True:
            side.sendall(b"*1000000\r\n" + b":1\r\n" * 1_000_000)

    with Peer(talk) as peer:
        connection = Connection(peer.address, 5, 20)
        connection.send([b"x"])
        took, _ = ends_late(lambda: [within(connection, 0.3).read() for _ in range(1)])
        assert took < 2
        connection.close()


def test_sending_to_a_server_that_does_not_read_costs_the_stall_time() -> None:
    with pair() as (connection, _):
        took, _ = ends_late(lambda: within(connection, 20).send([b"x" * (64 << 20)]))
        assert took < STALL_S + 2


def test_sending_to_a_server_that_reads_by_the_drop_does_not_outlive_the_deadline() -> None:
    stopping = threading.Event()

    def talk(side: socket.socket) -> None:
        while not stopping.wait(0.02):
            side.recv(200_000)

    with Peer(talk) as peer:
        connection = within(Connection(peer.address, 5, 20), 0.5)
        took, _ = ends_late(lambda: connection.send([b"x" * (256 << 20)]))
        stopping.set()
        assert 0.5 <= took < 2
        connection.close()


def test_more_buffers_than_one_call_takes_arrive_whole_and_in_order() -> None:
    parts = [b"%d," % n for n in range(3000)] + [b"", b"end"]
    with pair() as (connection, other):
        within(connection, 5).send(parts)
        connection.close()
        with other.makefile("rb") as came:
            assert came.read() == b"".join(parts)


def test_connecting_where_nobody_listens_fails_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with pytest.raises(WireError, match=r"connect: .*refused"):
        Connection(address, 5, 1)


@pytest.mark.parametrize("address", [("a..b", 6379), ("x" * 70 + ".test", 6379), ("127.0.0.1", 99_999), "/nowhere/s"])
def test_an_address_that_is_none_is_a_failed_connection_not_another_exception(address: tuple[str, int] | str) -> None:
    with pytest.raises(WireError, match="connect"):
        Connection(address, 1, 1)


def test_a_server_that_accepts_nothing_costs_the_connect_time(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(path)
            started = time.monotonic()
            with pytest.raises(WireError, match="connect"):
                Connection(path, 0.3, 20)
            assert time.monotonic() - started < 1


# -- an idle connection ------------------------------------------------------------------------------


def test_an_idle_connection_is_ready_once_something_happens_to_it() -> None:
    with pair() as (connection, other):
        assert not connection.ready()
        other.sendall(b":1\r\n:2\r\n")
        assert awaited(connection.ready)
        assert connection.read() == 1
        assert connection.ready(), "what was read ahead counts"
        assert connection.read() == 2
        assert not connection.ready()
        other.close()
        assert awaited(connection.ready)


def awaited(condition: Callable[[], bool], seconds: float = 5) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.002)
    return True


# -- unix sockets and TLS ----------------------------------------------------------------------------


def echo_values(side: socket.socket) -> None:
    """Answer every command with a value of 300,000 bytes."""
    while side.recv(65536):
        side.sendall(bulk(VALUE[:10_000] * 30))


def test_a_unix_socket_carries_the_same(tmp_path: Path) -> None:
    with Peer(echo_values, unix=str(tmp_path / "s")) as peer:
        connection = within(Connection(peer.address, 5, STALL_S), 10)
        room = Room(300_000)
        connection.send([command(b"GET", b"k")])
        assert connection.read_into(room.view) is True
        assert room.view == VALUE[:10_000] * 30
        connection.close()


@pytest.fixture
def encrypted(certificate: tuple[Path, Path]) -> Iterator[Peer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with Peer(echo_values, tls=context) as peer:
        yield peer


def test_tls_carries_the_same(encrypted: Peer, certificate: tuple[Path, Path]) -> None:
    connection = Connection(encrypted.address, 5, STALL_S, ssl.create_default_context(cafile=certificate[0]))
    within(connection, 10)
    for _ in range(3):
        room = Room(300_000)
        connection.send([command(b"GET", b"k")])
        assert connection.read_into(room.view) is True
        assert room.view == VALUE[:10_000] * 30
        assert room.untouched_around
    assert not connection.ready()
    connection.close()


def test_tls_passes_over_a_value_of_another_size(encrypted: Peer, certificate: tuple[Path, Path]) -> None:
    connection = Connection(encrypted.address, 5, STALL_S, ssl.create_default_context(cafile=certificate[0]))
    within(connection, 10).send([command(b"GET", b"k")])
    with pytest.raises(ReplyError, match="expected 10"):
        connection.read_into(memoryview(bytearray(10)))
    connection.send([command(b"GET", b"k")])
    assert connection.read() == VALUE[:10_000] * 30
    connection.close()


def test_an_idle_tls_connection_notices_its_end(certificate: tuple[Path, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    ending = threading.Event()

    def talk(side: socket.socket) -> None:
        side.recv(100)
        side.sendall(b":1\r\n")
        ending.wait(5)

    with Peer(talk, tls=context) as peer:
        connection = Connection(peer.address, 5, STALL_S, ssl.create_default_context(cafile=certificate[0]))
        assert within(connection, 5).call(b"PING") == 1
        assert not connection.ready()
        ending.set()
        assert awaited(connection.ready)
        connection.close()


def test_a_certificate_that_nobody_signed_is_refused(encrypted: Peer) -> None:
    with pytest.raises(WireError, match=r"connect: .*certificate verify failed"):
        Connection(encrypted.address, 5, STALL_S, ssl.create_default_context())


def test_a_certificate_of_another_host_is_refused(encrypted: Peer, certificate: tuple[Path, Path]) -> None:
    assert isinstance(encrypted.address, tuple)
    with pytest.raises(WireError, match=r"connect: .*(mismatch|doesn't match|not valid)"):
        Connection(("localhost", encrypted.address[1]), 5, STALL_S, ssl.create_default_context(cafile=certificate[0]))


def test_a_server_without_tls_and_one_that_never_shakes_hands_are_failed_connections() -> None:
    for talk in (lambda side: side.sendall(b"-ERR what\r\n"), lambda side: [side.recv(100_000), side.recv(1)]):
        with Peer(talk) as peer:
            started = time.monotonic()
            with pytest.raises(WireError, match="connect"):
                Connection(peer.address, 0.5, STALL_S, ssl.create_default_context())
            assert time.monotonic() - started < 1.5


@pytest.mark.parametrize("every_s", [0.02, 60])
def test_tls_keeps_deadlines_too(certificate: tuple[Path, Path], every_s: float) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    stopping = threading.Event()
    with Peer(dribble(b"$10000\r\n" + b"x" * 10_000, every_s, stopping), tls=context) as peer:
        connection = Connection(peer.address, 5, 20, ssl.create_default_context(cafile=certificate[0]))
        took, _ = ends_late(lambda: within(connection, 0.5).read_into(memoryview(bytearray(10_000))))
        stopping.set()
        assert 0.5 <= took < 1.5
        connection.close()


# -- fuzz --------------------------------------------------------------------------------------------

sane: st.SearchStrategy[Reply] = st.recursive(
    st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.binary(max_size=40), st.none()),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)


def encoded(reply: Reply) -> bytes:
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, list):
        return b"*%d\r\n%s" % (len(reply), b"".join(map(encoded, reply)))
    assert not isinstance(reply, ReplyError)
    return bulk(reply)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid reply with some bytes changed, taken out, put in, or twice."""
    data = bytearray(b"".join(encoded(reply) for reply in draw(st.lists(sane, min_size=1, max_size=3))))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        how = draw(st.integers(0, 3))
        if how == 0:
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif how == 1:
            del data[at : at + draw(st.integers(1, 5))]
        elif how == 2:
            data[at:at] = draw(st.sampled_from([b"\r\n", b"$", b"*9\r\n", b"$-1\r\n", b"-", b"99999999", b"\n", b":"]))
        else:
            data[at:at] = data[at : at + 20]
    return bytes(data)


noise = st.one_of(
    st.binary(max_size=200),
    mutated(),
    st.lists(st.sampled_from([b"$", b"*", b":", b"-", b"+", b"\r\n", b"1", b"8", b"0", b"x" * 8]), max_size=30).map(
        b"".join
    ),
)
cuts = st.lists(st.integers(1, 40), max_size=12)


@settings(max_examples=150, deadline=None)
@given(st.lists(sane, min_size=1, max_size=4), cuts)
def test_fuzz_every_valid_reply_is_read_as_it_is_however_it_is_split(replies: list[Reply], splits: list[int]) -> None:
    with pair(b"".join(map(encoded, replies)), splits) as (connection, _):
        within(connection, 5)
        assert [connection.read() for _ in replies] == replies


@settings(max_examples=500, deadline=None)
@given(noise, cuts, st.integers(0, 40), st.lists(st.booleans(), min_size=1, max_size=6))
@example(b"$8\r\n" + b"x" * 8 + b"\r\n", [3], 8, [True])
@example(b"*1048576\r\n", [], 8, [False])
@example(b"$536870912\r\n", [], 8, [False])
@example(b"$9999999999999999999\r\n", [], 8, [True])
def test_fuzz_reading_ends_with_a_value_an_error_reply_or_a_broken_connection(
    said: bytes, splits: list[int], size: int, into: list[bool]
) -> None:
    with pair(said, splits) as (connection, other):
        other.shutdown(socket.SHUT_WR)
        within(connection, 3)
        started = time.monotonic()
        try:
            for straight in into:
                room = Room(size)
                try:
                    if straight:
                        assert connection.read_into(room.view) in (True, False)
                    else:
                        connection.read()
                except ReplyError:
                    pass
                finally:
                    assert room.untouched_around
        except WireError:
            pass
        assert time.monotonic() - started < 3
        assert len(connection._buffer) <= len(said)


@settings(max_examples=150, deadline=None)
@given(noise, st.integers(0, 40), cuts)
def test_fuzz_both_ways_of_reading_a_value_agree(said: bytes, size: int, splits: list[int]) -> None:
    outcomes: list[object] = []
    for plain in (True, False):
        with pair(said, splits) as (connection, other):
            other.shutdown(socket.SHUT_WR)
            within(connection, 3)
            connection._plain = plain
            room = memoryview(bytearray(size))
            try:
                there = connection.read_into(room)
                rest = connection.read()
                outcomes.append((there, bytes(room) if there else b"", str(rest)))
            except ReplyError as error:
                outcomes.append((str(error),))
            except WireError:
                outcomes.append(("broken",))
    assert outcomes[0] == outcomes[1]
