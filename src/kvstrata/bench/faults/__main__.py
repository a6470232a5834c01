"""Run the fault matrix for one adapter on one engine; the rows go to a JSON file, a line for each to the terminal."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

# Before numpy is imported: threads of its own would make forking unsafe.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

from kvstrata.bench.faults import matrix
from kvstrata.bench.faults.cases import CASES
from kvstrata.bench.faults.rows import FAILED, Row
from kvstrata.bench.faults.servers import ENGINES

ADAPTERS = ("kvstrata", "resp", "valkey")


def main(words: Sequence[str]) -> int:
    """Run the named faults, or all; return 1 when kvstrata failed one."""
    known = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="python -m kvstrata.bench.faults", description=__doc__)
    parser.add_argument("--adapter", choices=ADAPTERS, default="kvstrata")
    parser.add_argument("--engine", choices=ENGINES, default="redis")
    parser.add_argument("--fault", action="append", choices=known, metavar="NAME", help=f"one of {', '.join(known)}")
    default = Path(os.environ.get("KVSTRATA_CACHE") or Path.home() / ".cache" / "kvstrata") / "bin" / "kvrocks"
    parser.add_argument("--kvrocks", type=Path, default=default, help="the binary")
    parser.add_argument("--seed", type=int, default=1, help="of contents and moments")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    given = parser.parse_args(words)
    cases = [case for case in CASES if not given.fault or case.name in given.fault]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kvstrata-faults-", ignore_cleanup_errors=True) as folder:
        plan = matrix.Plan(given.adapter, given.engine, given.kvrocks, Path(folder), given.seed)
        rows = [_told(row) for row in matrix.run(plan, cases)]
    print(f"{len(rows)} faults in {time.monotonic() - began:.0f} s", flush=True)
    if given.json:
        given.json.write_text(json.dumps([row.to_json() for row in rows], indent=2) + "\n")
    return 1 if given.adapter == "kvstrata" and any(row.verdict == FAILED for row in rows) else 0


def _told(row: Row) -> Row:
    deadline = "" if row.deadline_s is None else f" of {row.deadline_s:g}"
    back = "" if row.back_s is None else f", back after {row.back_s:.2f} s"
    worst = f"{row.worst_operation} {row.worst_s:.2f} s{deadline}" if row.worst_operation else ""
    details = "; ".join([*row.broken, *row.notes, *(f"{name}: {value:g}" for name, value in row.figures.items())])
    name = f"{row.adapter:8} {row.engine:7} {row.fault:18}"
    print(f"{row.verdict:11} {name} {row.seconds:5.1f} s  {worst}{back}  {details}", flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
