"""systemd: the state of units, their definitions, stopping and starting them."""

from __future__ import annotations

from tests.verify.simulated.commands.registry import Said, answers
from tests.verify.simulated.state import Machine


@answers("systemctl", "show", "--no-pager")
def _show(machine: Machine, words: list[str]) -> str:
    blocks = []
    for unit in words[words.index("--") + 1 :]:
        if unit not in machine.node.units:
            blocks.append(f"Id={unit}\nLoadState=not-found\nActiveState=inactive\nSubState=dead")
            continue
        active, sub = ("inactive", "dead") if unit in machine.stopped else ("active", "running")
        blocks.append(
            f"Id={unit}\nLoadState=loaded\nActiveState={active}\nSubState={sub}\nUnitFileState=enabled\nNRestarts=0\n"
            f"Result=success\nInvocationID={unit}-{machine.invocations.get(unit, 0)}\n"
            "ActiveEnterTimestamp=Tue 2026-11-24 20:14:00 UTC"
        )
    return "\n\n".join(blocks) + "\n"


@answers("systemctl", "cat")
def _cat(machine: Machine, words: list[str]) -> str:
    return "".join(f"# /etc/systemd/system/{unit}\n[Unit]\n" for unit in words[words.index("--") + 1 :])


@answers("systemctl", "restart")
def _restart(machine: Machine, words: list[str]) -> Said:
    for unit in words[words.index("--") + 1 :]:
        machine.restart(unit)
    return Said()
