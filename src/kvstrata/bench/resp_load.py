"""The load client: RESP over plain sockets, values sent from and received into preallocated memory.

Run as a program it is one worker: a job as a JSON line on stdin, `ready` when it is connected, `go` on stdin, then the
result as a JSON line. Standard library only, and nothing of kvstrata.l2: what is judged must not
measure itself.
"""

from __future__ import annotations

import itertools
import json
import random
import resource
import sys
import threading
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypedDict

from kvstrata.bench.resp import Connection, WrongAnswerError, encode

# Larger than a CPU's cache, so that values are sent from DRAM as a cache daemon's would be.
POOL_BYTES = 64 << 20
_CHECKED = 64


@dataclass(frozen=True)
class ConnectionJob:
    """What one connection does: read its values in `reads`, write those in `writes`, `limit` requests at most."""

    number: int
    port: int
    reads: tuple[int, int] = (0, 0)
    writes: tuple[int, int] = (0, 0)
    limit: int | None = None


@dataclass(frozen=True)
class Job:
    """What one worker does; `read_share` of its requests are reads: 0 writes only, 1 reads only."""

    connections: Sequence[ConnectionJob]
    value_bytes: int
    layout: str
    fields_per_hash: int
    pipeline: int
    seconds: float
    seed: int
    read_share: float = 0.0
    io_timeout_s: float = 30.0

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read what `to_json` wrote."""
        data = json.loads(text)
        data["connections"] = [
            ConnectionJob(**{**entry, "reads": tuple(entry["reads"]), "writes": tuple(entry["writes"])})
            for entry in data["connections"]
        ]
        return cls(**data)

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(asdict(self))


class ConnectionDone(TypedDict):
    """`ConnectionResult` as JSON."""

    number: int
    read: int
    written: int
    began: float
    ended: float
    latencies_us: list[int]
    error: str


class WorkerDone(TypedDict):
    """What a worker reports: seconds of CPU while it drove the load, and each connection."""

    cpu_s: float
    connections: list[ConnectionDone]


@dataclass
class ConnectionResult:
    """What one connection did. Times are CLOCK_MONOTONIC seconds, latencies microseconds, in order of completion."""

    number: int
    read: int = 0
    written: int = 0
    began: float = 0.0
    ended: float = 0.0
    latencies_us: array[int] = field(default_factory=lambda: array("Q"))
    error: str = ""


class Values:
    """The values of every connection: slices of one pool of seeded random bytes, so nothing compresses or is zero."""

    def __init__(self, job: Job) -> None:
        """Make the pool."""
        self._job = job
        self._size = job.value_bytes
        self._pool = memoryview(random.Random(job.seed).randbytes(max(POOL_BYTES, 2 * self._size)))  # noqa: S311

    def value(self, connection: int, number: int) -> memoryview:
        """Return the value that a connection writes under a number; the same in every worker with this seed."""
        at = (connection * 7919 + number) * self._size % (len(self._pool) - self._size + 1)
        return self._pool[at : at + self._size]

    def write(self, connection: int, number: int) -> tuple[bytes, memoryview, bytes]:
        """Return the parts of the request that writes it."""
        words = (
            [b"HSET", *self._hash(connection, number)]
            if self._job.layout == "hash"
            else [b"SET", _key(connection, number)]
        )
        head = b"*%d\r\n" % (len(words) + 1) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
        return head + b"$%d\r\n" % self._size, self.value(connection, number), b"\r\n"

    def read(self, connection: int, number: int) -> bytes:
        """Return the request that reads it."""
        if self._job.layout == "hash":
            return encode([b"HGET", *self._hash(connection, number)])
        return encode([b"GET", _key(connection, number)])

    def check(self, connection: int, number: int, seen: memoryview | None) -> None:
        """Compare length, beginning, middle and end of a value with what was written; all of it would cost too much.

        Raises:
            WrongAnswerError: it differs.
        """
        expected = self.value(connection, number)
        if seen is None:
            raise WrongAnswerError(f"value {number} of connection {connection} is missing")
        middle = self._size // 2
        parts = (slice(_CHECKED), slice(middle, middle + _CHECKED), slice(-_CHECKED, None))
        if len(seen) != self._size or any(seen[part] != expected[part] for part in parts):
            raise WrongAnswerError(f"value {number} of connection {connection} is not what was written")

    def _hash(self, connection: int, number: int) -> tuple[bytes, bytes]:
        group, field_number = divmod(number, self._job.fields_per_hash)
        return _key(connection, group), b"%d" % field_number


def order(job: Job, connection: ConnectionJob) -> Iterator[tuple[bool, int]]:
    """Yield (is a read, number) for each request of a connection: reads shuffled, writes in order.

    Reads are shuffled, because a sequential pass would be served by the kernel's read-ahead, which a cache's random
    chunks are not. The shuffle depends on the seed alone: a pass cut short is a prefix of the next one. Ends when
    there is nothing left of the kind whose turn it is, so that a mix stays one until its end.
    """
    chance = random.Random(f"{job.seed}/{connection.number}")  # noqa: S311
    numbers = list(range(*connection.reads))
    chance.shuffle(numbers)
    reads, writes = iter(numbers), iter(range(*connection.writes))
    turns = itertools.count() if connection.limit is None else range(connection.limit)
    for _ in turns:
        is_read = chance.random() < job.read_share
        number = next(reads if is_read else writes, None)
        if number is None:
            return
        yield is_read, number


def drive(
    job: Job, plan: ConnectionJob, values: Values, connection: Connection, start: threading.Event
) -> ConnectionResult:
    """Send one connection's requests, `pipeline` at a time, until they end or the time is over."""
    result = ConnectionResult(plan.number)
    requests = order(job, plan)
    start.wait()
    result.began = result.ended = time.monotonic()
    over = result.began + job.seconds
    try:
        while batch := list(itertools.islice(requests, job.pipeline)):
            _exchange(plan, values, connection, batch, result)
            if result.ended >= over:
                break
    except (OSError, WrongAnswerError) as error:
        result.error = f"{type(error).__name__}: {error}"
    return result


def _exchange(
    plan: ConnectionJob,
    values: Values,
    connection: Connection,
    batch: Sequence[tuple[bool, int]],
    result: ConnectionResult,
) -> None:
    parts: list[bytes | memoryview] = []
    for is_read, number in batch:
        parts.extend([values.read(plan.number, number)] if is_read else values.write(plan.number, number))
    sent = time.monotonic()
    connection.send(parts)
    for is_read, number in batch:
        if is_read:
            values.check(plan.number, number, connection.bulk())
            result.read += 1
        else:
            connection.line()
            result.written += 1
        result.ended = time.monotonic()
        result.latencies_us.append(int((result.ended - sent) * 1e6))


def _key(connection: int, number: int) -> bytes:
    return b"bench:%d:%d" % (connection, number)


def main() -> None:
    """Be one worker."""
    job = Job.from_json(sys.stdin.readline())
    values = Values(job)
    largest = job.value_bytes
    links = [Connection(plan.port, largest, job.io_timeout_s) for plan in job.connections]
    start = threading.Event()
    results: list[ConnectionResult] = []
    threads = [
        threading.Thread(target=lambda p=plan, c=link: results.append(drive(job, p, values, c, start)))
        for plan, link in zip(job.connections, links, strict=True)
    ]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.readline()
    before = resource.getrusage(resource.RUSAGE_SELF)
    start.set()
    for thread in threads:
        thread.join()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    done = [asdict(result) | {"latencies_us": list(result.latencies_us)} for result in results]
    print(json.dumps({"cpu_s": cpu_s, "connections": done}), flush=True)


if __name__ == "__main__":
    main()
