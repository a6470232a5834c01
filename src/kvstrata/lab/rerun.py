"""How long the host roles take on nodes where nothing is left to do: what every later run costs at least."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

from kvstrata.lab import shell
from kvstrata.lab.errors import LabError
from kvstrata.paths import PROJECT

# A host's line of Ansible's recap.
_RECAP = re.compile(r"^(\S+) +: ok=(\d+) +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", re.MULTILINE)
# What a task took, by the callback profile_tasks.
_TASK = re.compile(r"^(\S.*?) -{3,} *([\d.]+)s$", re.MULTILINE)
_PLAYBOOK = PROJECT / "playbooks" / "hosts.yml"
# Above what any run needs; a node that hangs should not hang the test for longer.
_DEADLINE_S = 600


@dataclass(frozen=True)
class Rerun:
    """A run of the host roles: its hosts, its seconds, what it changed, and its slowest tasks in seconds."""

    hosts: tuple[str, ...]
    seconds: float
    changed: dict[str, int]
    slowest: dict[str, float]


def parse(output: str, seconds: float) -> Rerun:
    """Read what ansible-playbook printed; LabError when it has no recap."""
    rows = _RECAP.findall(output)
    if not rows:
        raise LabError(f"ansible-playbook printed no recap:\n{output[-2000:]}")
    changed = {host: int(changes) for host, _, changes, _, _ in rows if int(changes)}
    return Rerun(
        tuple(row[0] for row in rows), seconds, changed, {name: float(took) for name, took in _TASK.findall(output)}
    )


def rerun(inventory: Path) -> Rerun:
    """Run the host roles on all nodes of the inventory; LabError when they fail."""
    started = time.monotonic()
    # Without colours, which Ansible may be told to print where nobody reads them.
    argv = ("env", "ANSIBLE_NOCOLOR=1", "ANSIBLE_FORCE_COLOR=0", f"ANSIBLE_CONFIG={PROJECT / 'ansible.cfg'}")
    output = shell.run((*argv, "ansible-playbook", str(_PLAYBOOK), f"--inventory={inventory}"), timeout_s=_DEADLINE_S)
    return parse(output, time.monotonic() - started)
