"""The connections to one endpoint: lanes of worker threads over a bounded queue, with deadlines and a breaker.

Three lanes, so that nothing waits behind something slower: `control` for small questions, `load` and `store` for
pieces. A lane starts a thread when work waits and none is idle, and an idle thread ends by itself, so a fleet of many
endpoints costs only what is in use.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from kvstrata.l2.breaker import Breaker
from kvstrata.l2.config import EndpointConfig
from kvstrata.l2.metrics import Counters, Histogram
from kvstrata.l2.rate import RateMeter
from kvstrata.l2.wire import Connection, DeadlineError, ReplyError, WireError

_IDLE_S = 30.0
STAGES = ("connect", "control", "wait", "server", "copy", "checksum")
"""What is timed: connecting with its handshake; a round trip of small commands; a piece's time in the queue, until
its first byte, until its last, and in its checksum."""


class AccessError(WireError):
    """The store refused the password, or asks for one."""


class Job:
    """One piece of work on a connection. Exactly one of finish (without raising) and failed ends it."""

    deadline = 0.0
    """time.monotonic() after which the result is worth nothing."""
    cost = 0
    """Bytes that wait with it."""
    retried = False

    def start(self, connection: Connection) -> None:
        """Send the request; replies to earlier requests of the connection may still be outstanding."""

    def finish(self, connection: Connection) -> None:
        """Read the reply and settle the job. A WireError leaves it unsettled; error replies are the job's own."""
        raise NotImplementedError

    def failed(self, reason: str) -> None:
        """Settle the job as failed."""
        raise NotImplementedError


class Lane:
    """A queue, and up to `workers` threads with a connection each, that keep `depth` requests under way."""

    def __init__(self, endpoint: Endpoint, name: str, workers: int, depth: int, limit: int, stall_s: float) -> None:
        """Make the lane; `limit` bounds the bytes that wait in it, 0 is unbounded."""
        self._endpoint = endpoint
        self._name = name
        self._workers = workers
        self._depth = depth
        self._limit = limit
        self._stall_s = stall_s
        lock = threading.RLock()
        self._condition = threading.Condition(lock)
        # For those who wait for the end of the work: a wake-up that is meant for a worker must not go to them.
        self._quiet = threading.Condition(lock)
        self._queue: deque[Job] = deque()
        self._threads = self._idle = 0
        self._active = 0
        self._closed = False
        self.queued_bytes = 0

    def submit(self, job: Job) -> None:
        """Queue a job; it is failed at once while the endpoint is unavailable or the queue is full."""
        refusal = ""
        with self._condition:
            if self._closed:
                refusal = "closed"
            elif not self._endpoint.breaker.closed:
                refusal = "unavailable"
            elif self._limit and self._queue and self.queued_bytes + job.cost > self._limit:
                refusal = "queue_full"
            else:
                self._queue.append(job)
                self.queued_bytes += job.cost
                if self._idle:
                    self._condition.notify()
                # An idle thread that was woken for an earlier job is still counted as idle until it runs.
                if len(self._queue) > self._idle and self._threads < self._workers:
                    self._threads += 1
                    name = f"l2-{self._name}-{self._endpoint.config.port}"
                    threading.Thread(target=self._serve, name=name, daemon=True).start()
        if refusal:
            self._fail(job, refusal)

    @property
    def busy(self) -> bool:
        """Whether anything waits or is under way."""
        return bool(self._queue or self._active)

    def wait_idle(self, timeout_s: float) -> None:
        """Return when nothing waits or is under way, or after `timeout_s`."""
        if not self.busy:
            return
        with self._quiet:
            self._quiet.wait_for(lambda: not self.busy, timeout_s)

    def sweep(self, now: float) -> None:
        """Fail the queued jobs whose deadline is over: all workers may hang on others."""
        with self._condition:
            late = [job for job in self._queue if job.deadline <= now]
            if late:
                self._queue = deque(job for job in self._queue if job.deadline > now)
                self.queued_bytes -= sum(job.cost for job in late)
        for job in late:
            self._fail(job, "deadline")

    def fail_queued(self, reason: str) -> None:
        """Fail everything that waits."""
        with self._condition:
            jobs, self._queue = list(self._queue), deque()
            self.queued_bytes = 0
        for job in jobs:
            self._fail(job, reason)

    def close(self, timeout_s: float) -> None:
        """Fail what waits, and await what is under way, which its own deadline bounds."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self.fail_queued("closed")
        with self._quiet:
            self._quiet.wait_for(lambda: not self._threads, timeout_s)

    # -- the workers -------------------------------------------------------------------------------

    def _take(self, wait: bool) -> Job | None:
        """Return the next job that is not too late, or None: at once, or after a time without one."""
        while True:
            with self._condition:
                if wait and not self._queue and not self._closed:
                    self._idle += 1
                    self._condition.wait_for(lambda: self._queue or self._closed, _IDLE_S)
                    self._idle -= 1
                if not self._queue:
                    return None
                job = self._queue.popleft()
                self.queued_bytes -= job.cost
                self._active += 1
            if job.deadline > time.monotonic():
                return job
            self._fail(job, "deadline")
            self._settled()

    def _fail(self, job: Job, reason: str) -> None:
        try:
            job.failed(reason)
        except Exception as error:  # of a callback: the thread, and the other jobs, go on
            self._endpoint.counters.add("internal_errors")
            self._endpoint.fault = repr(error)

    def _settled(self, count: int = 1) -> None:
        with self._condition:
            self._active -= count
            if not self._active and not self._queue:
                self._quiet.notify_all()

    def _serve(self) -> None:
        connection: Connection | None = None
        while True:
            job = self._take(wait=True)
            if job is None:
                with self._condition:
                    # Between the wait and here a job may have come that counted on this thread.
                    if self._queue and not self._closed:
                        continue
                    self._threads -= 1
                    self._quiet.notify_all()
                break
            connection = self._work(connection, job)
        if connection is not None:
            connection.close()

    def _work(self, connection: Connection | None, job: Job) -> Connection | None:
        """Do `job`, and what else waits meanwhile, on one connection; return the connection while it is good."""
        pending = deque([job])
        try:
            if connection is not None and connection.ready():
                connection.close()
                connection = None
            if connection is None:
                connection = self._endpoint.connect(job.deadline)
                connection.stall_s = self._stall_s
            connection.deadline = job.deadline
            job.start(connection)
            while pending:
                while len(pending) < self._depth:
                    more = self._take(wait=False)
                    if more is None:
                        break
                    pending.append(more)
                    connection.deadline = more.deadline
                    more.start(connection)
                connection.deadline = pending[0].deadline
                pending[0].finish(connection)
                pending.popleft()
                self._settled()
                self._endpoint.breaker.succeeded()
            return connection
        except WireError as error:
            if connection is not None:
                connection.close()
            self._lost(list(pending), error)
            return None
        except Exception as error:  # a fault of ours must cost a miss, never a request that hangs
            if connection is not None:
                connection.close()
            self._endpoint.counters.add("internal_errors")
            self._endpoint.fault = repr(error)
            for lost in pending:
                self._fail(lost, "internal_error")
            self._settled(len(pending))
            return None

    def _lost(self, jobs: list[Job], error: WireError) -> None:
        """Try once more what a closed connection took with it; fail what has waited too long."""
        late, hung = isinstance(error, DeadlineError), self._endpoint.hung(error)
        self._endpoint.trouble(error, self._name)
        now = time.monotonic()
        again = [
            job for job in jobs if not hung and not job.retried and job.deadline > now and self._endpoint.breaker.closed
        ]
        for job in jobs:
            if job not in again:
                self._fail(job, "deadline" if late else "connection")
        with self._condition:
            for job in reversed(again):
                job.retried = True
                self._queue.appendleft(job)
                self.queued_bytes += job.cost
        self._settled(len(jobs))


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

    def trouble(self, error: WireError, lane: str) -> None:
        """Count a failed connection or request, and leave the endpoint alone if that was enough."""
        reason = f"{lane}: {error}"
        self.counters.add("timeouts" if isinstance(error, DeadlineError) else "connection_errors")
        refused = isinstance(error, AccessError) or str(error).startswith("connect:")
        at_once = refused or (self.hung(error) and lane != "store")
        if self.breaker.failed(reason, at_once):
            self._left_alone()

    def hung(self, error: WireError) -> bool:
        """Tell an endpoint that has fallen silent from a request that began too late to be answered in time."""
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
