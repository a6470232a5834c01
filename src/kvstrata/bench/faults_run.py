"""Run the fault matrix in the nodes' environment, an adapter and an engine after another."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kvstrata.bench.errors import BenchError
from kvstrata.bench.faults.rows import Row
from kvstrata.paths import PROJECT

SCHEMA = "kvstrata.bench.faults/1"
# A case ends after 100 s at the latest (faults/cases.py), and most after a few.
_PART_S = 3600.0


@dataclass(frozen=True)
class Result:
    """All rows of a run, and what they were seen with."""

    created: str
    versions: dict[str, str]
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-safe values."""
        rows = [row.to_json() for row in self.rows]
        return {"schema": SCHEMA, "created": self.created, "versions": self.versions, "rows": rows}


def part(
    python: Path, adapter: str, engine: str, faults: Sequence[str], kvrocks: Path, say: Callable[[str], None]
) -> list[Row]:
    """Run the matrix for one adapter on one engine, each row told as it comes.

    Raises:
        BenchError: it could not be run to its end.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        words = ["--adapter", adapter, "--engine", engine, "--kvrocks", str(kvrocks), "--json", str(file)]
        words += [word for fault in faults for word in ("--fault", fault)]
        environ = {**os.environ, "PYTHONPATH": str(PROJECT / "src"), "LMCACHE_LOG_LEVEL": "ERROR"}
        process = subprocess.Popen(
            [str(python), "-m", "kvstrata.bench.faults", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environ,
            cwd=PROJECT,
        )
        said = []
        try:
            for line in process.stdout or ():
                said.append(line.rstrip())
                say(line.rstrip())
            process.wait(_PART_S)
        finally:
            # It removes its folder, and its servers end with it.
            process.terminate()
            process.wait()
        if not file.exists():
            raise BenchError(f"{adapter} on {engine}: ended with {process.returncode}: {' | '.join(said[-5:])}")
        return [Row.from_json(values) for values in json.loads(file.read_text())]


def versions(python: Path, servers: dict[str, str]) -> dict[str, str]:
    """Return the versions of LMCache, of valkey's client and of the servers."""
    script = "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in %r}))"
    names = ["lmcache", "valkey-glide-sync"]
    done = subprocess.run([str(python), "-c", script % names], capture_output=True, text=True, check=False)
    found: dict[str, str] = json.loads(done.stdout) if done.returncode == 0 else {}
    return {**found, **servers, "kernel": os.uname().release}


def now() -> str:
    """Return the time as the result carries it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
