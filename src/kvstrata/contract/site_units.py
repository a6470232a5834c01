"""Programs on a site's nodes for the time of a run: transient units of systemd, which end with the run or after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from kvstrata.verify.faults.stops import signals_held
from kvstrata.verify.shell import Shell

PYTHON = "/opt/kvstrata/current/bin/python"
_PREFIX = "kvstrata-routing-"
# For the case that this process is killed, or the way to the node is lost: the unit ends itself.
_LONGEST_S = 7200
_STOP_S = 90.0
# A program's own start takes that long on a node whose engines use every core.
_PYTHON_S = 120.0
_FREE_PORTS = """
import socket, sys
held = [socket.socket() for _ in range(int(sys.argv[1]))]
for each in held:
    each.bind(("127.0.0.1", 0))
print(*[each.getsockname()[1] for each in held])
"""


@contextmanager
def running(shell: Shell, name: str, argv: Sequence[str], properties: Mapping[str, str]) -> Iterator[str]:
    """Have a program run on a node; yield its unit's name. It and all of its files are gone afterwards.

    Raises:
        UnableError: systemd did not start it.
    """
    unit = f"{_PREFIX}{name}.service"
    # One that an earlier run left, because it was killed.
    shell.run(["systemctl", "stop", "--", unit], _STOP_S)
    words = ["systemd-run", f"--unit={unit}", "--collect", f"--property=RuntimeMaxSec={_LONGEST_S}"]
    words += [f"--property={key}={value}" for key, value in properties.items()]
    try:
        shell.run([*words, "--", *argv], _STOP_S).text()
        yield unit
    finally:
        with signals_held(lambda _: None, f"stopping {unit}"):
            shell.run(["systemctl", "stop", "--", unit], _STOP_S)


def free_ports(shell: Shell, count: int) -> list[int]:
    """Return ports of the node's loopback that nobody listens on just now."""
    return [int(word) for word in shell.run([PYTHON, "-c", _FREE_PORTS, str(count)], _PYTHON_S).text().split()]


def main_pid(shell: Shell, unit: str) -> int:
    """Return the unit's main process; 0 where it has none."""
    return int(shell.run(["systemctl", "show", "--property=MainPID", "--value", "--", unit]).text() or 0)
