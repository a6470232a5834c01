"""What the runner remembers of each unit, in a folder: one JSON file, one log, and the folder for its /tmp."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kvstrata.unit_runner import tree

DEFAULT = Path("/run/kvstrata-units")


@dataclass(frozen=True)
class State:
    """One unit, as its supervisor last told."""

    unit: str
    active: str = "inactive"
    """activating, active, deactivating, failed, inactive, and auto-restart between two tries."""
    main_pid: int = 0
    supervisor: int = 0
    supervisor_start: int = 0
    restarts: int = 0
    result: str = ""
    """How the last main process ended, or why there was none."""
    since: float = 0.0
    """When it became so, in seconds of the epoch."""
    invocation: str = ""
    """INVOCATION_ID of its processes."""
    not_applied: tuple[str, ...] = ()


class Store:
    """The folder."""

    def __init__(self, folder: Path) -> None:
        """Keep everything below `folder`, which is made."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def log(self, unit: str) -> Path:
        """Return the file of a unit's output."""
        return self.folder / f"{unit}.log"

    def write(self, state: State) -> None:
        """Replace what is known of a unit."""
        partial = self.folder / f".{state.unit}.json"
        partial.write_text(json.dumps(asdict(state), indent=1) + "\n")
        partial.rename(self.folder / f"{state.unit}.json")

    def read(self, unit: str) -> State:
        """Return what is known of a unit; of one whose supervisor was killed, that it failed."""
        try:
            found = State(**json.loads((self.folder / f"{unit}.json").read_text()))
        except FileNotFoundError:
            return State(unit)
        found = replace(found, not_applied=tuple(found.not_applied))
        if found.supervisor and not alive(found):
            return replace(
                found, active="failed", supervisor=0, result=f"its supervisor is gone; {found.result}".strip("; ")
            )
        return found

    def units(self) -> list[str]:
        """Return the names of all units that were ever started here."""
        return sorted(file.stem for file in self.folder.glob("*.json") if not file.name.startswith("."))


def alive(state: State) -> bool:
    """Return whether the supervisor of this state still runs."""
    return (
        bool(state.supervisor)
        and tree.start_time(state.supervisor) == state.supervisor_start
        and _not_zombie(state.supervisor)
    )


def own(unit: str) -> State:
    """Return the state of a unit whose supervisor is this process."""
    pid = os.getpid()
    return State(unit, supervisor=pid, supervisor_start=tree.start_time(pid) or 0)


def _not_zombie(pid: int) -> bool:
    try:
        return (tree.PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
