"""The connections to one endpoint: three lanes behind one circuit breaker.

Three, so that nothing waits behind something slower: `control` for small questions, `load` and `store` for pieces.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from kvstrata.l2.breaker import Breaker
from kvstrata.l2.config import EndpointConfig
from kvstrata.l2.lane import Job, Lane
from kvstrata.l2.metrics import Counters, Histogram
from kvstrata.l2.rate import RateMeter
from kvstrata.l2.wire import Connection, DeadlineError, ReplyError, WireError

STAGES = ("connect", "control", "wait", "server", "copy", "checksum")
"""What is timed: connecting with its handshake; a round trip of small commands; a piece's time in the queue, until
its first byte, until its last, and in its checksum."""


class AccessError(WireError):
    """The store refused the password, or asks for one."""


class Endpoint:
    """One store as this process sees it: its lanes, its breaker, what was measured of it."""

    def __init__(
        self,
        config: EndpointConfig,
        connect_timeout_s: float,
        stall_s: float,
        load: tuple[int, int],
        store_workers: int,
        store_queue_bytes: int,
    ) -> None:
        """Make the endpoint without connecting; `load` is the load lane's (workers, depth)."""
        self.config = config
        self.breaker = Breaker()
        self.counters = Counters()
        self.histograms = {stage: Histogram() for stage in STAGES}
        self.rate = RateMeter()
        self.loaded_bytes = self.stored_bytes = 0
        self.fault = ""
        """The last fault of our own code, which should be none."""
        self.writes_refused_until = 0.0
        self.writes_refused = ""
        """What the store said when it last refused a write."""
        self.connect_timeout_s = connect_timeout_s
        self.stall_s = stall_s
        self._closing = threading.Event()
        self._probing = threading.Lock()
        self.control = Lane(self, "control", 1, 16, 0, stall_s)
        self.load = Lane(self, "load", *load, 0, stall_s)
        # A store may stall for seconds while it flushes; that alone says nothing about its reads.
        self.store = Lane(self, "store", store_workers, 1, store_queue_bytes, max(10.0, stall_s))
        self.lanes = (self.control, self.load, self.store)

    @property
    def name(self) -> str:
        """host:port."""
        return self.config.name

    def connect(self, deadline: float) -> Connection:
        """Return a new authenticated connection.

        Raises:
            WireError: when that fails, AccessError for a refused password.
        """
        started = time.monotonic()
        timeout_s = max(0.01, min(self.connect_timeout_s, deadline - started))
        try:
            tls = self.config.tls()
        except OSError as error:
            raise WireError(f"tls_ca {self.config.tls_ca}: {error}") from error
        try:
            connection = Connection(self.config.address, timeout_s, timeout_s, tls)
        except WireError as error:
            if timeout_s < self.connect_timeout_s and time.monotonic() >= deadline:
                raise DeadlineError("the deadline passed while connecting", timeout_s) from error
            raise
        try:
            words = [word for word in (self.config.user, self.config.password) if word]
            if words:
                connection.call(b"AUTH", *words)
            _greet(connection)
        except ReplyError as error:
            connection.close()
            raise AccessError(str(error)) from error
        except WireError:
            connection.close()
            raise
        self.histograms["connect"].observe(time.monotonic() - started)
        return connection

    def trouble(self, error: WireError, lane: str, hung: bool) -> None:
        """Count a failed connection or request, and leave the endpoint alone if that was enough."""
        reason = f"{lane}: {error}"
        self.counters.add("timeouts" if isinstance(error, DeadlineError) else "connection_errors")
        unreached = str(error).startswith("connect:")
        refused = isinstance(error, AccessError) or (unreached and not isinstance(error, DeadlineError))
        at_once = refused or (hung and (unreached or lane != "store"))
        if self.breaker.failed(reason, at_once):
            self._left_alone()

    def silent(self, error: WireError) -> bool:
        """Tell a connection that has fallen silent from a request that began too late to be answered in time."""
        return isinstance(error, DeadlineError) and error.silent_s >= min(self.stall_s, self.connect_timeout_s) / 2

    def _left_alone(self) -> None:
        for lane in self.lanes:
            lane.fail_queued("unavailable")
        if self._probing.acquire(blocking=False):
            threading.Thread(target=self._probe, name=f"l2-probe-{self.config.port}", daemon=True).start()

    def _probe(self) -> None:
        """Ask again and again, ever more seldom, until the endpoint answers."""
        try:
            while not self.breaker.closed:
                if self._closing.wait(self.breaker.next_probe_s()):
                    return
                self.breaker.half_open()
                try:
                    self.connect(time.monotonic() + self.connect_timeout_s).close()
                except WireError as error:
                    self.breaker.failed(f"probe: {error}")
                else:
                    self.breaker.succeeded()
        finally:
            self._probing.release()
        # It may have opened again between the last look and the release.
        if not self.breaker.closed and not self._closing.is_set():
            self._left_alone()

    def refuse_writes(self, reason: str, seconds: float) -> None:
        """Note that the store refused a write: for some seconds none is tried, and reads go on."""
        self.counters.add("writes_refused")
        self.writes_refused = reason
        self.writes_refused_until = time.monotonic() + seconds

    @property
    def takes_writes(self) -> bool:
        """Whether a write may be tried."""
        return self.breaker.closed and time.monotonic() >= self.writes_refused_until

    def sweep(self) -> None:
        """Fail what waited too long in the queues."""
        now = time.monotonic()
        for lane in self.lanes:
            lane.sweep(now)

    def close(self, timeout_s: float) -> None:
        """Stop: nothing is under way in our buffers when this returns, but for `timeout_s` having passed."""
        self._closing.set()
        for lane in self.lanes:
            lane.close(timeout_s)


class Call(Job):
    """Small commands in one pipeline on the control lane; `done` gets the replies, or None when there are none."""

    def __init__(
        self,
        endpoint: Endpoint,
        commands: list[bytes],
        deadline: float,
        done: Callable[[list[object] | None], None],
    ) -> None:
        """Take commands made by wire.command."""
        self._endpoint = endpoint
        self._commands = commands
        self._done = done
        self._started = 0.0
        self.deadline = deadline

    def start(self, connection: Connection) -> None:
        """Send the commands."""
        self._started = time.monotonic()
        connection.send(self._commands)

    def finish(self, connection: Connection) -> None:
        """Read the replies and hand them over."""
        replies: list[object] = [connection.read() for _ in self._commands]
        self._endpoint.histograms["control"].observe(time.monotonic() - self._started)
        self._hand_over(replies)

    def failed(self, reason: str) -> None:
        """Count the failure and hand over None."""
        self._endpoint.counters.add(f"call_{reason}")
        self._hand_over(None)

    def _hand_over(self, replies: list[object] | None) -> None:
        # Once: a callback that fails half-way must not be called again when the lane fails its job.
        done, self._done = self._done, _nothing
        done(replies)


def _greet(connection: Connection) -> None:
    """Ask whether the server answers; raises ReplyError for a refusal."""
    try:
        connection.call(b"PING")
    except ReplyError as error:
        # Redis with a full drive refuses writes and PING, and serves reads.
        if not str(error).startswith("MISCONF"):
            raise


def _nothing(_replies: list[object] | None) -> None:
    """Take replies that were handed over already."""
