"""What systemd says about units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvstrata.verify.shell import Shell

_PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "NRestarts",
    "Result",
    "InvocationID",
    "ActiveEnterTimestamp",
)


@dataclass(frozen=True)
class UnitState:
    """One unit at one moment. `restarts` counts those that systemd did by itself."""

    name: str
    load: str
    active: str
    sub: str
    enabled: str
    restarts: int
    result: str
    invocation: str
    since: str

    @property
    def running(self) -> bool:
        """Whether the main process runs."""
        return self.active == "active" and self.sub == "running"


def states(shell: Shell, units: Sequence[str]) -> dict[str, UnitState]:
    """The state of each unit by its name; a unit that systemd doesn't know has load `not-found`."""
    if not units:
        return {}
    argv = ["systemctl", "show", "--no-pager", f"--property={','.join(_PROPERTIES)}", "--", *units]
    blocks = shell.run(argv).text().split("\n\n")
    found = [_state(block) for block in blocks]
    return {state.name: state for state in found}


def _state(block: str) -> UnitState:
    values = dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line)
    restarts = values.get("NRestarts", "0")
    return UnitState(
        name=values.get("Id", ""),
        load=values.get("LoadState", ""),
        active=values.get("ActiveState", ""),
        sub=values.get("SubState", ""),
        enabled=values.get("UnitFileState", ""),
        restarts=int(restarts) if restarts.isdigit() else 0,
        result=values.get("Result", ""),
        invocation=values.get("InvocationID", ""),
        since=values.get("ActiveEnterTimestamp", ""),
    )
