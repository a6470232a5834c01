"""Rounds of stores, each by a new process, the store restarted in between: is it bounded for ever, and still warm?

Prints the store's port first, so that somebody else can watch it all along, and waits for a line on its standard input.
Then it writes twice the capacity in ten rounds, one JSON line for each on standard output, `done`, and waits again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

from kvstrata.bench.faults import isolate
from kvstrata.bench.faults.probe import MIB, Probe
from kvstrata.bench.faults.rig import Rig
from kvstrata.bench.faults.servers import ENGINES, find_binary

ROUNDS = 10
TIMES = 2
"""So many capacities are written in all."""
KILLED_ROUND = 4
"""In this round the process is killed with -9 while it stores."""
_FAVOURITES = 4
# What was stored in so many rounds before must still be served: 0.6 of the capacity.
_WARM_ROUNDS = 3
_STORE_S = 30.0


@dataclass(frozen=True)
class Round:
    """What one process saw."""

    number: int
    warm_asked: int
    """Chunks of the rounds before, and those used in every round ..."""
    warm_hit: int
    """... and how many of them were served, with the right bytes."""
    wrong_chunks: int
    stored: int
    """Chunks that were acknowledged."""
    killed: bool
    seconds: float


def main(words: Sequence[str]) -> int:
    """Run all rounds."""
    parser = argparse.ArgumentParser(prog="python -m kvstrata.bench.faults.endurance", description=__doc__)
    parser.add_argument("--engine", choices=ENGINES, required=True)
    parser.add_argument("--kvrocks", type=Path, required=True, help="the binary")
    parser.add_argument("--capacity-mib", type=int, required=True)
    parser.add_argument("--chunk-mib", type=int, default=1)
    given = parser.parse_args(words)
    isolate.prepare()
    with tempfile.TemporaryDirectory(prefix="kvstrata-endurance-", ignore_cleanup_errors=True) as folder:
        rig = Rig("kvstrata", given.engine, find_binary(given.engine, given.kvrocks), Path(folder), seed=1)
        try:
            _run(rig, given.capacity_mib * MIB, given.chunk_mib * MIB)
        finally:
            rig.close()
            isolate.await_orphans()
    return 0


def _run(rig: Rig, capacity: int, size: int) -> None:
    server = rig.server().start()
    print(json.dumps({"port": server.port}), flush=True)
    sys.stdin.readline()
    favourites = rig.names(_FAVOURITES, "favourite")
    history: list[list[str]] = []
    count = TIMES * capacity // size // ROUNDS
    for number in range(ROUNDS):
        names = rig.names(count, f"round{number}")
        warm = favourites * bool(number) + [name for group in history[-_WARM_ROUNDS:] for name in group]
        fresh = names if number else favourites + names
        killed = number == KILLED_ROUND
        mark = rig.folder / f"half{number}"
        child = rig.child(lambda: _round(rig, server.port, capacity, size, warm, fresh, mark), f"round{number}")  # noqa: B023
        began = time.monotonic()
        if killed:
            while not mark.exists() and time.monotonic() - began < _STORE_S:
                time.sleep(0.005)
            child.kill()
            child.wait(5.0)
            told = Round(number, 0, 0, 0, 0, True, 0.0)
        else:
            outcome = child.wait(4 * _STORE_S)
            if outcome.failure:
                raise RuntimeError(f"round {number}: {outcome.failure}")
            told = replace(outcome.value, number=number, seconds=round(time.monotonic() - began, 2))
        # Of a process that was killed nobody knows what it had stored.
        history.append([] if killed else names)
        print(json.dumps(asdict(told)), flush=True)
        server.stop()
        server.start()
    print("done", flush=True)
    sys.stdin.readline()


def _round(
    rig: Rig, port: int, capacity: int, size: int, warm: Sequence[str], fresh: Sequence[str], mark: Path
) -> Round:
    probe = rig.open(port, capacity_bytes=capacity)
    hits = sum(hit for start in range(0, len(warm), 16) for hit in probe.fetch(warm[start : start + 16], size))
    stored = 0
    for number, name in enumerate(fresh):
        if number == len(fresh) // 2:
            mark.touch()
        stored += _store(probe, name, size)
    probe.close()
    return Round(0, len(warm), hits, rig.seen.wrong_chunks, stored, False, 0.0)


def _store(probe: Probe, name: str, size: int) -> bool:
    """Store a chunk; a store that is full is given time to evict."""
    until = time.monotonic() + _STORE_S
    while not probe.store([name], size):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
