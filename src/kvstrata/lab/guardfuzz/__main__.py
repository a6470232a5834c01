"""`python -m kvstrata.lab.guardfuzz --minutes 60 --seed 1 --json FILE`: as root; ends with 1 if the guard ever erred.

Of every round a seed is printed where something went wrong; `--only SEED` plays that round again.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kvstrata.lab.guardfuzz.loops import Loop
from kvstrata.lab.guardfuzz.plans import Templates
from kvstrata.lab.guardfuzz.rounds import Round, Tally

_DRIVES = 3
_SAY_EVERY_S = 30.0


def fuzz(seed: str, folder: Path, *, seconds: float = 0, rounds: int = 0, only: str = "", say: Any = None) -> Tally:
    """Play rounds for so many seconds, or so many rounds, and return what was counted.

    Args:
        seed: from which each round's own seed is made.
        folder: for images; they are sparse, and at most 304 MiB each.
        seconds: how long; 0: as many `rounds` as said.
        rounds: how many; 0: as long as said.
        only: the seed of one round to play, and no other.
        say: called now and then with the Tally.
    """
    tally = Tally()
    loops = [Loop(folder / f"drive{index}.img", 1 << 20) for index in range(_DRIVES)]
    templates = Templates(folder)
    until, said = time.monotonic() + seconds, time.monotonic()
    number = 0
    while only or (number < rounds if rounds else time.monotonic() < until):
        Round(only or f"{seed}-{number}", loops, templates, folder, tally).play()
        number += 1
        if say and time.monotonic() - said > _SAY_EVERY_S:
            said = time.monotonic()
            say(tally)
        if only:
            break
    return tally


def report(tally: Tally, seed: str, seconds: float) -> dict[str, Any]:
    """Return what was counted as plain JSON, the reasons sorted."""
    plain: dict[str, Any] = {}
    # Not asdict, which makes nonsense of a Counter.
    for name in tally.__dataclass_fields__:
        value = getattr(tally, name)
        plain[name] = dict(sorted(value.items())) if isinstance(value, Counter) else value
    return {"seed": seed, "seconds": round(seconds, 1), "good": tally.good, **plain}


def line(tally: Tally, seconds: float) -> str:
    """Return what was counted in one line."""
    return (
        f"{seconds:7.0f} s  {tally.rounds} rounds, {tally.drives} judgements: {sum(tally.accepts.values())} accepts, "
        f"{tally.refusals} refusals; false accepts {tally.false_accepts}, false refusals {tally.false_refusals}, "
        f"missed reasons {tally.missed_reasons}, changed images {tally.changed_images}, "
        f"rounds that could not be played {len(tally.unplayed)}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m kvstrata.lab.guardfuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--json", type=Path, help="where the counts are written, also while it runs")
    parser.add_argument("--only", default="", metavar="SEED", help="play this one round again")
    given = parser.parse_args(argv)
    # What is attached and mounted is taken back then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    started = time.monotonic()
    shown = 0

    def say(tally: Tally) -> None:
        nonlocal shown
        seconds = time.monotonic() - started
        print(line(tally, seconds), flush=True)
        for failure in tally.failures[shown:]:
            print(json.dumps(failure, indent=1), flush=True)
        shown = len(tally.failures)
        if given.json:
            given.json.write_text(json.dumps(report(tally, given.seed, seconds), indent=1) + "\n")

    with TemporaryDirectory(prefix="guardfuzz-") as folder:
        tally = fuzz(given.seed, Path(folder), seconds=given.minutes * 60, only=given.only, say=say)
    say(tally)
    return 0 if tally.good else 1


if __name__ == "__main__":
    sys.exit(main())
