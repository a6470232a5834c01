"""The controller's end of `l2_worker`: a process with a client in it, every order bounded in time."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvstrata.bench.errors import BenchError

_START_S = 120.0
_END_S = 20.0
# Beyond the worker's own patience: it should say itself what did not answer.
_GRACE_S = 30.0
_SOURCES = Path(__file__).resolve().parents[2]


class Process:
    """One client in a process of its own; a context manager."""

    def __init__(
        self,
        python: Path,
        log: Path,
        client: str,
        endpoints: Sequence[Mapping[str, Any]],
        fields: Mapping[str, Any],
        chunk_bytes: int,
        batch: int,
        seed: int,
        patience_s: float,
    ) -> None:
        """Start it and have it make its buffers; it connects with the order `open`.

        Raises:
            BenchError: it could not.
        """
        self._log = log
        self._patience_s = patience_s
        self._received = b""
        # PYTHONPATH is kept: what the interpreter lacks (awscrt) may lie there.
        path = os.pathsep.join(filter(None, (str(_SOURCES), os.environ.get("PYTHONPATH"))))
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [str(python), "-m", "kvstrata.bench.l2_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": path},
            )
        job = {
            "client": client,
            "endpoints": list(endpoints),
            "fields": dict(fields),
            "chunk_bytes": chunk_bytes,
            "batch": batch,
            "seed": seed,
            "patience_s": patience_s,
        }
        try:
            self._exchange(job, _START_S)
        except BenchError:
            self.end()
            raise

    def __enter__(self) -> Process:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.end()

    def order(self, op: str, batches: int = 1, **arguments: int) -> dict[str, Any]:
        """Have it do something that takes its patience `batches` times at most.

        Raises:
            BenchError: it failed, or did not answer in time.
        """
        return self._exchange({"op": op, **arguments}, batches * self._patience_s + _GRACE_S)

    def end(self) -> None:
        """End the process, by force if need be."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            # It may be gone already.
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _exchange(self, order: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        assert self._process.stdin is not None  # noqa: S101
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise BenchError(f"the client's process ended: {self._last_words()}") from error
        answer: dict[str, Any] = json.loads(self._line(seconds))
        if "error" in answer:
            raise BenchError(f"{order.get('op', 'start')}: {answer['error']}")
        return answer

    def _line(self, seconds: float) -> bytes:
        assert self._process.stdout is not None  # noqa: S101
        until = time.monotonic() + seconds
        while b"\n" not in self._received:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                self._process.kill()
                raise BenchError(f"the client did not answer within {seconds:.0f} s: {self._last_words()}")
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            if not data:
                raise BenchError(f"the client's process ended: {self._last_words()}")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"
