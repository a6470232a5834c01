"""The machine: the host layer's survey, its drives' rates, its link, its clock. The forms are those of `FakeHost`."""

from __future__ import annotations

import json
import time

from kvstrata.verify.layers.host import survey
from kvstrata.verify.layers.host.onnode import read_drives, send_segments
from tests.verify.fakes.host import SMART, FakeHost, findmnt
from tests.verify.fakes.shell import FakeShell
from tests.verify.simulated.commands.registry import Said, answers
from tests.verify.simulated.state import Machine

# Four runs of 64 MiB at the drive's rate, and 8 MiB at the rate that the link is measured with.
READ_S, SEND_S = 0.1, 0.53
SEGMENTS = 938
CPUS = {0: "0-3", 1: "4-7"}
_ALL = "Cpus_allowed_list:\t0-7\nMems_allowed_list:\t0-1\n"


def host(machine: Machine) -> FakeHost:
    """The machine as its state is: two NUMA nodes, its drive on node 0."""
    state, node = machine.state, machine.node
    shell = FakeShell()
    fake = FakeHost(shell, state.clock_offset_s, state.drive_share, round(SEGMENTS * state.lost_share))
    fake.numa = {
        "nodes": {str(name): {"cpus": cpus, "memory_gib": 256} for name, cpus in CPUS.items()},
        "gpus": [],
        "nics": [],
        "nvme": [{"ids": [_id(mount.device)], "numa_node": 0} for mount in node.mounts],
    }
    for mount in node.mounts:
        if state.mounted == "nothing":
            shell.answers["findmnt"], shell.exits["findmnt"] = "", 1
        elif state.mounted == "folder":
            system = {"source": "/dev/nvme7n1p2", "maj:min": "259:9", "fsroot": "/srv", "fstype": "ext4"}
            shell.answers["findmnt"] = findmnt(mount.path, **system)
        elif state.mounted == "drive":
            shell.answers["findmnt"] = findmnt(mount.path, **{"source": "/dev/nvme5n1", "maj:min": "259:5"})
            fake.parts[f"block {mount.path}"] = "leaf 259:5 nvme5n1"
            fake.parts["smart nvme5n1"] = json.dumps(SMART) + "\n\nexit 0"
    for store in node.stores:
        fake.units[store.unit] = f"CPUAffinity={CPUS[0]}\nNUMAPolicy=bind\nNUMAMask=0"
        runs_on = state.memory_node
        fake.processes[store.unit] = (
            f"Cpus_allowed_list:\t{CPUS[runs_on]}\nMems_allowed_list:\t0-1\n"
            f"5581f0a0b000 bind:{runs_on} file=/opt/k N0=9\n"
        )
    if node.lmcache is not None:
        fake.units[node.lmcache.unit] = "NUMAPolicy=interleave\nNUMAMask=0 1"
        fake.processes[node.lmcache.unit] = f"{_ALL}5581f0a0b000 interleave:0-1 file=/opt/k N0=9\n"
    for unit in ("1", *node.units):
        fake.processes.setdefault(unit, _ALL)
    address = node.fabric_host
    fake.parts["addresses"] = f"2: eth0    inet {address}/16 scope global eth0\nmtu eth0 9000"
    return fake


@answers("sh", "-c", survey.SCRIPT)
def _survey(machine: Machine, words: list[str]) -> str:
    return host(machine).survey(words)


@answers("python3", "-c", read_drives)
def _read_drives(machine: Machine, words: list[str]) -> Said:
    return Said(host(machine).read_drives(words), delay_s=READ_S)


@answers("python3", "-c", send_segments)
def _send_segments(machine: Machine, words: list[str]) -> Said:
    return Said(host(machine).send_segments(words), delay_s=SEND_S)


@answers("date", "+%s.%N")
def _date(machine: Machine, words: list[str]) -> str:
    return f"{time.time() + machine.state.clock_offset_s:.9f}\n"


@answers("ip", "-oneline", "address", "show", "to")
def _address(machine: Machine, words: list[str]) -> str:
    return f"2: eth0    inet {words[5]}/24 scope global secondary eth0\n" if machine.holds_address else ""


def _id(device: str | None) -> str:
    return (device or "").rpartition("/")[2]
