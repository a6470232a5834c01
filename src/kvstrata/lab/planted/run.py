"""Plant one fault after another in the running lab, verify, and take each away again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kvstrata.lab import shell
from kvstrata.lab.errors import LabError
from kvstrata.lab.planted.faults import FAULTS, Fault
from kvstrata.lab.planted.site import Site
from kvstrata.lab.planted.verdict import Row, failures, read

VERIFY_S = 420.0
# Not the tiers, which restart services and prove another thing, and not the throughput: the lab has no bounds for it.
LAYERS = "host,store,cache,engine,router"


def named(names: Sequence[str]) -> tuple[Fault, ...]:
    """The faults of those names, all where none is given; LabError for an unknown one."""
    known = {fault.name: fault for fault in FAULTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise LabError(f"fault {', '.join(unknown)}: there are {', '.join(known)}")
    return tuple(known[name] for name in names) or FAULTS


@contextmanager
def planted(site: Site, fault: Fault) -> Iterator[None]:
    """Have the fault in the lab for the block, all services well beside it; taken away whatever happens."""
    try:
        fault.plant(site)
        site.settle(fault.besides)
        yield
    finally:
        fault.unplant(site)
    site.settle()


def clean(site: Site) -> None:
    """Take every fault away, those too that an earlier run has left."""
    for fault in FAULTS:
        fault.unplant(site)
    site.settle()


def verify(inventory: Path) -> dict[str, Any]:
    """The document of `kvstrata verify` of `LAYERS`; LabError when there is none."""
    program = str(Path(sys.executable).parent / "kvstrata")
    argv = [program, "verify", f"--inventory={inventory}", f"--only={LAYERS}", "--json", "--keep=0"]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=VERIFY_S, env=shell.environment(), check=False
        )
        document: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise LabError(f"`kvstrata verify` did not end within {VERIFY_S:.0f} s") from None
    except ValueError:
        raise LabError(
            f"`kvstrata verify` exited with {done.returncode} and gave no document:\n{done.stderr}"
        ) from None
    return document


def one(site: Site, fault: Fault, say: Callable[[str], None], *, after: bool = True) -> Row:
    """Plant one fault, verify, take it away, and with `after` verify again."""
    started = time.monotonic()
    say(f"{fault.name}: planting")
    try:
        with planted(site, fault):
            say(f"{fault.name}: verifying")
            document = verify(fault.inventory(site))
            told, others, follows = read(document, fault.check, fault.host)
            say(f"{fault.name}: taking it away")
    except LabError as error:
        return Row(fault.name, fault.check, fault.how, "", (), (), None, time.monotonic() - started, str(error))
    well = None
    if after:
        left = failures(verify(site.inventory))
        well = not left
        for entry in left:
            say(f"{fault.name}: still there: {entry['id']} on {entry['host']}: {entry['seen']}")
    took = round(time.monotonic() - started, 1)
    row = Row(fault.name, fault.check, fault.how, told, others, follows, well, took)
    say(f"{fault.name}: {'ok' if row.ok else 'NOT ok'} after {took:.0f} s: {told or 'not named'}")
    if not told:
        for entry in document["checks"]:
            if entry["id"] == fault.check:
                say(f"{fault.name}: {entry['id']} on {entry['host']} says {entry['status']}: {entry['seen']}")
    for other in others:
        say(f"{fault.name}: also failed: {other}")
    return row
