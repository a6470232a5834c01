"""What the host layer's commands print on a node that is well, and the ways for it not to be."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kvstrata.verify.layers.host import survey
from kvstrata.verify.layers.host.onnode import read_drives, send_segments, take_segments
from tests.verify.fakes.shell import FakeShell

SURVEY = f"sh -c {survey.START}"
READ_DRIVES = f"python3 -c {inspect.getsource(read_drives)}"
SEND_SEGMENTS = f"python3 -c {inspect.getsource(send_segments)}"
TAKE_SEGMENTS = f"python3 -c {inspect.getsource(take_segments)}"

BASELINE_MBPS = 6500.0
UUID = "0a905e49-e957-45de-8d93-1650cbd4eda9"
SMART = {"critical_warning": 0, "avail_spare": 100, "spare_thresh": 10, "percent_used": 3, "media_errors": 0}
LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max open files            {files}              {files}              files
Max locked memory         {locked}            {locked}            bytes
"""


def findmnt(path: str, **changes: str) -> str:
    """What findmnt says of a drive's mount."""
    found = {
        "target": path,
        "source": "/dev/nvme0n1",
        "fstype": "xfs",
        "fsroot": "/",
        "maj:min": "259:0",
        "options": "rw,noatime",
        "uuid": UUID,
    }
    return json.dumps({"filesystems": [found | changes]})


@dataclass
class FakeHost:
    """A node of one NUMA node, two CPUs and NVMe drives, each mounted and as quick as it was."""

    shell: FakeShell
    skew_s: float = 0.0
    speed_share: float = 1.0
    lost: int = 0
    """Of the segments that this node sends."""
    fact: dict[str, Any] = field(default_factory=lambda: {"schema": 1, "drives": {}})
    """More drives, or other ones, than those of the mounts."""
    numa: dict[str, Any] = field(
        default_factory=lambda: {"nodes": {"0": {"cpus": "0-1", "memory_gib": 8}}, "gpus": [], "nvme": [], "nics": []}
    )
    units: dict[str, str] = field(default_factory=dict)
    """More lines of `systemctl show`, by unit; later ones win."""
    processes: dict[str, str] = field(default_factory=dict)
    """The CPUs, memory nodes and policy of a unit's process, as lines of /proc, where they are other than all."""
    limits: dict[str, str] = field(default_factory=dict)
    """/proc/PID/limits of a unit, or of `1`."""
    parts: dict[str, str] = field(default_factory=dict)
    """Whole parts of the survey, by title."""
    segments: dict[str, Any] = field(default_factory=dict)
    """Other counters of the connection that this node sends over."""

    def answers(self) -> dict[str, Any]:
        """The commands of the layer, as FakeShell takes them."""
        return {
            SURVEY: self.survey,
            READ_DRIVES: self.read_drives,
            SEND_SEGMENTS: self.send_segments,
            TAKE_SEGMENTS: '{"bytes": 8388608}',
        }

    def survey(self, argv: Sequence[str]) -> str:
        """The parts in the script's order."""
        _, _, units, *mounts = argv[4:]
        paths = [entry.partition("=")[0] for entry in mounts]
        parts = {"begin": self._now(), "container": "none"}
        for entry in mounts:
            path, _, devices = entry.partition("=")
            said = self.shell.answers.get("findmnt", findmnt(path))
            assert isinstance(said, str)
            parts[f"mount {path}"] = f"exit {self.shell.exits.get('findmnt', 0)}\n{said}"
            parts[f"block {path}"] = "leaf 259:0 nvme0n1"
            parts[f"devices {path}"] = "\n".join(f"{each} /dev/nvme0n1 103 0" for each in devices.split(",") if each)
        blocks = [self._unit(unit, 100 + index) for index, unit in enumerate(units.split())]
        parts["units"] = "\n\n".join(blocks)
        for index, unit in enumerate(["1", *units.split()]):
            pid = 99 + index if index else 1
            parts[f"process {pid}"] = self.limits.get(unit, LIMITS.format(files=1048576, locked="unlimited"))
            parts[f"process {pid}"] += self.processes.get(unit, "Cpus_allowed_list:\t0-1\nMems_allowed_list:\t0\n")
        parts |= {
            "drives": json.dumps(self._fact(paths)),
            "numa": json.dumps(self.numa),
            "sysctl": "# Written by Ansible\nvm.swappiness = 1\nnet.ipv4.tcp_rmem = 4096 131072 33554432\n",
            "sysctl-now": "vm.swappiness = 1\nnet.ipv4.tcp_rmem = 4096\t131072\t33554432\n",
            "boot": "w /sys/kernel/mm/transparent_hugepage/enabled - - - - madvise\n",
            "boot-now": "/sys/kernel/mm/transparent_hugepage/enabled /sys/kernel/mm/transparent_hugepage/enabled = "
            "always [madvise] never\n",
            "clock": "yes",
            "addresses": "2: eth0    inet 10.9.0.11/24 scope global eth0\n2: eth0    inet 10.9.0.12/24\nmtu eth0 9000",
            "smart": "/usr/sbin/nvme",
            "smart nvme0n1": json.dumps(SMART) + "\n\nexit 0",
        }
        parts |= self.parts
        parts["end"] = self._now()
        return "".join(f"\n@@ {title}\n{text}\n" for title, text in parts.items())

    def read_drives(self, argv: Sequence[str]) -> str:
        """Four spans of 64 MiB of each drive."""
        seconds = (1 << 26) / (BASELINE_MBPS * 1e6 * self.speed_share)
        answer = {
            "spans": [{"bytes": 1 << 26, "seconds": seconds}] * 4,
            "seconds": 4 * seconds,
            "others_bytes": 0,
            "from": "device",
            "used_bytes": 0,
            "size_bytes": 1 << 40,
            "error": "",
        }
        return json.dumps(dict.fromkeys(json.loads(argv[3]), answer))

    def send_segments(self, argv: Sequence[str]) -> str:
        """8 MiB in segments of an Ethernet of jumbo frames."""
        sent = {
            "segments": 938,
            "resent": self.lost,
            "arrived_twice": 0,
            "round_trip_us": 180,
            "segment_bytes": 8948,
            "path_mtu": 9000,
            "mtu": 9000,
            "interface": "eth0",
            "pings_full": 4,
            "pings_small": None,
            "seconds": 0.53,
        }
        return json.dumps(sent | self.segments)

    def _now(self) -> str:
        return f"{time.time() + self.skew_s:.9f}"

    def _unit(self, unit: str, pid: int) -> str:
        lines = f"Id={unit}\nMainPID={pid}\nLimitNOFILE=1048576\nLimitNOFILESoft=1048576\nLimitMEMLOCK=infinity\n"
        return f"{lines}LimitMEMLOCKSoft=infinity\nNUMAPolicy=n/a\nNUMAMask=\n{self.units.get(unit, '')}".strip()

    def _fact(self, paths: list[str]) -> dict[str, Any]:
        baseline = {"on_written_data": False, "used_bytes": 0, "seq_1m": {"mb_per_s": BASELINE_MBPS}}
        drives = {path.rpartition("/")[2]: {"uuid": UUID, "baseline": baseline} for path in paths}
        return {**self.fact, "drives": {**drives, **self.fact["drives"]}}
