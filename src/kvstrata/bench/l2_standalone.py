"""`python -m kvstrata.bench.l2_standalone`: `kvstrata bench l2` on a host that has Python and nothing else.

Needs the standard library alone for `--clients tier` (the Tier without LMCache); the other clients need `--python`, an
interpreter with LMCache. awscrt on PYTHONPATH, where there is one, makes checksums cost nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from kvstrata.bench import l2_cases, l2_text
from kvstrata.bench.errors import BenchError
from kvstrata.bench.l2_results import to_json
from kvstrata.bench.l2_run import Plan, run
from kvstrata.bench.l2_stores import KVROCKS, REDIS
from kvstrata.bench.sizes import parse_size


def main() -> int:
    """Run; 0: complete, 1: a case failed, 2: could not run."""
    options = _options().parse_args()
    try:
        plan = _plan(options)
        result = run(plan, lambda text: print(f".. {text}", file=sys.stderr, flush=True))
    except (BenchError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(l2_text.render(result))
    if options.json:
        options.json.write_text(json.dumps(to_json(result), indent=1) + "\n")
    return 0 if result.complete else 1


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kvstrata.bench.l2_standalone", description=__doc__)
    parser.add_argument("--kvrocks", type=Path, help="the Kvrocks to start; without one, redis-server (no drive)")
    parser.add_argument("--dir", type=Path, required=True, help="folder on the drive to measure")
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="interpreter of the clients")
    parser.add_argument(
        "--clients", default=l2_cases.TIER, help="tier, resp-native, kvstrata, resp, valkey; several with commas"
    )
    parser.add_argument("--transports", default="tcp,unix", help="of kvstrata's: tcp, unix")
    parser.add_argument(
        "--sweep", nargs="?", const="all", help="vary TierConfig: all, or of piece, connections, depth, ..."
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chunks", type=int, default=32)
    parser.add_argument("--chunk-bytes", default="32MiB")
    parser.add_argument("--batch", type=int, default=16, help="chunks of one store, lookup or load")
    parser.add_argument("--passes", type=int, default=3, help="warm passes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--wait-minutes", type=float, default=0.0, help="most minutes to wait for a quiet machine")
    parser.add_argument("--allow-tmpfs", action="store_true", help="accept a --dir in memory")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    binary = options.kvrocks or shutil.which("redis-server")
    if not binary:
        raise BenchError("no --kvrocks, and no redis-server on PATH")
    clients = options.clients.split(",")
    if options.sweep:
        axes = [] if options.sweep == "all" else options.sweep.split(",")
        cases = l2_cases.sweep(axes, clients[0], unix=options.transports == "unix")
    else:
        cases = l2_cases.cases(clients, options.transports.split(","))
    return Plan(
        cases=cases,
        store=KVROCKS if options.kvrocks else REDIS,
        binary=Path(binary),
        folder=options.dir,
        python=options.python,
        rounds=options.rounds,
        chunks=options.chunks,
        chunk_bytes=parse_size(options.chunk_bytes),
        batch=options.batch,
        passes=options.passes,
        seed=options.seed,
        minutes=options.minutes,
        wait_minutes=options.wait_minutes,
        allow_memory=options.allow_tmpfs,
    )


if __name__ == "__main__":
    sys.exit(main())
