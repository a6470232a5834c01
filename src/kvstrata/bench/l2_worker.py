"""The process that holds a client under test: told what to do line by line, it says what that took.

Node side (Python 3.10+): the controller starts it in the nodes' environment, or with its own Python for the Tier
alone. One JSON object a line on standard input, one on standard output for each; standard error is a log.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from kvstrata.bench.l2_clients import Client, make_client

# Every so many bytes a chunk carries its own number, so that a piece of another chunk is a wrong byte.
_STAMP_EVERY = 64 << 10
_STAMP_BYTES = 8


class Worker:
    """A client, and as many buffers as one batch takes."""

    def __init__(self, job: dict[str, Any]) -> None:
        """Make the buffers; `job` is what `l2_process.Process` sends first."""
        self._client: Client = make_client(job["client"], job["endpoints"], job["fields"], job["patience_s"])
        size, seed = job["chunk_bytes"], job["seed"]
        self._sources = [self._client.buffer(size, seed * 1000 + turn) for turn in range(job["batch"])]
        self._targets = [self._client.buffer(size, None) for _ in range(job["batch"])]

    def do(self, order: dict[str, Any]) -> dict[str, Any]:
        """Do one order; `op` names a method below."""
        method = getattr(self, f"_{order.pop('op')}")
        result: dict[str, Any] = method(**order)
        return result

    def _open(self) -> dict[str, Any]:
        self._client.open()
        return {}

    def _close(self) -> dict[str, Any]:
        self._client.close()
        return {}

    def _store(self, count: int) -> dict[str, Any]:
        clock = _Clock()
        for numbers in self._batches(count):
            buffers = [self._stamped(number) for number in numbers]
            with clock:
                stored = self._client.store(numbers, buffers)
            if not stored:
                raise RuntimeError(f"chunks {numbers[0]} to {numbers[-1]} were not all stored")
        return clock.report()

    def _lookup(self, first: int, count: int) -> dict[str, Any]:
        """Look up and unlock; a miss is a failure."""
        clock = _Clock()
        for numbers in self._batches(count, first):
            with clock:
                found = self._client.lookup(numbers)
            self._client.unlock(numbers)
            if not all(found):
                raise RuntimeError(f"{found.count(False)} of chunks {numbers[0]} to {numbers[-1]} were not found")
        return clock.report()

    def _load(self, count: int, passes: int, find: bool) -> dict[str, Any]:
        """Load batch by batch; the loads alone are timed, and every byte is compared.

        With `find` each batch is looked up before, which some clients do by reading all of it.
        """
        clock = _Clock()
        for _ in range(passes):
            for numbers in self._batches(count):
                self._clear(numbers)
                if find:
                    self._expect(self._client.lookup(numbers), numbers)
                with clock:
                    loaded = self._client.load(numbers, self._targets[: len(numbers)])
                if find:
                    self._client.unlock(numbers)
                self._expect(loaded, numbers)
                self._compare(numbers)
        return clock.report()

    def _journey(self, count: int) -> dict[str, Any]:
        """Look up and load chunks one by one; both are timed, and so is each stage where the client tells."""
        lookups, loads = _Clock(), _Clock()
        before = self._client.stages()
        for number in range(count):
            self._clear([number])
            with lookups:
                found = self._client.lookup([number])
            self._expect(found, [number])
            with loads:
                loaded = self._client.load([number], self._targets[:1])
            self._client.unlock([number])
            self._expect(loaded, [number])
        after = self._client.stages()
        stages = {
            stage: (times - before.get(stage, (0, 0.0))[0], seconds - before.get(stage, (0, 0.0))[1])
            for stage, (times, seconds) in after.items()
        }
        return {"lookup": lookups.report(), "load": loads.report(), "stages": stages}

    def _batches(self, count: int, first: int = 0) -> Iterator[list[int]]:
        for start in range(first, first + count, len(self._sources)):
            yield list(range(start, min(first + count, start + len(self._sources))))

    def _stamped(self, number: int) -> Any:
        """Return the contents of chunk `number`, valid until another chunk of the same buffer is asked for."""
        buffer = self._sources[number % len(self._sources)]
        view = self._client.view(buffer)
        for at in range(0, len(view) - _STAMP_BYTES, _STAMP_EVERY):
            view[at : at + _STAMP_BYTES] = (number * 1_000_003 + at).to_bytes(_STAMP_BYTES, "big")
        return buffer

    def _clear(self, numbers: Sequence[int]) -> None:
        for buffer in self._targets[: len(numbers)]:
            view = self._client.view(buffer)
            for at in range(0, len(view) - _STAMP_BYTES, _STAMP_EVERY):
                view[at : at + _STAMP_BYTES] = bytes(_STAMP_BYTES)

    def _compare(self, numbers: Sequence[int]) -> None:
        wrong = [n for turn, n in enumerate(numbers) if not self._client.same(self._targets[turn], self._stamped(n))]
        if wrong:
            raise RuntimeError(f"WRONG BYTES in chunks {wrong}")

    @staticmethod
    def _expect(flags: Sequence[bool], numbers: Sequence[int]) -> None:
        if not all(flags):
            raise RuntimeError(f"{list(flags).count(False)} of chunks {numbers[0]} to {numbers[-1]} are missing")


class _Clock:
    """Wall time and CPU time of this process, of all its threads, over the blocks that it enters."""

    def __init__(self) -> None:
        self._seconds = self._cpu_s = 0.0

    def __enter__(self) -> None:
        self._began, self._cpu_began = time.monotonic(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self._seconds += time.monotonic() - self._began
        self._cpu_s += time.process_time() - self._cpu_began

    def report(self) -> dict[str, Any]:
        return {"seconds": self._seconds, "cpu_s": self._cpu_s}


def main() -> None:
    """Answer orders until there are no more."""
    # LMCache prints to standard output; the answers go where nobody else writes.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker: Worker | None = None
    for line in sys.stdin:
        try:
            order = json.loads(line)
            if worker is None:
                worker, answer = Worker(order), {}
            else:
                answer = worker.do(order)
        except Exception as error:  # the controller decides what a failure means
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
