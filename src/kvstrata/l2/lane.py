"""A queue of jobs with deadlines, and the threads that do them, each on a connection of its own.

A lane starts a thread when work waits and none is idle, and an idle thread ends by itself, so a fleet of many endpoints
costs only what is in use.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from kvstrata.l2.wire import Connection, DeadlineError, WireError

if TYPE_CHECKING:
    from kvstrata.l2.pool import Endpoint

_IDLE_S = 30.0


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
        self._answered = 0.0
        """time.monotonic() of the last job that was answered, on any connection."""
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
                self._answered = time.monotonic()
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
        """Try once more what a lost connection took with it; fail what has waited too long."""
        late, hung = isinstance(error, DeadlineError), self._hangs(jobs, error)
        self._endpoint.trouble(error, self._name, hung)
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

    def _hangs(self, jobs: list[Job], error: WireError) -> bool:
        """Whether the endpoint has fallen silent, and not this connection alone.

        Where other jobs of the lane were answered meanwhile, the endpoint lives: on a machine with too little CPU a
        single reply can take seconds. A job that met silence twice is evidence enough.
        """
        if not isinstance(error, DeadlineError) or not self._endpoint.silent(error):
            return False
        answered_meanwhile = time.monotonic() - self._answered < error.silent_s
        return not answered_meanwhile or any(job.retried for job in jobs)
