"""A machine of files: folders in the place of /sys, /proc, /dev and udev's data base, with what a real one has there.

A device of it is a real device or a file that stands for one; what sysfs says of it is whatever a test writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvstrata.lab.guardfuzz.code import kvstrata_blockhost


@dataclass
class Machine:
    """The folders below `root`.

    Args:
        root: an empty folder.
        proc: the real /proc, where mounts and swap are real; a folder of its own otherwise.
    """

    root: Path
    proc: Path | None = None
    stand_ins: dict[str, str] = field(default_factory=dict)
    # Without a tool that answers, the guard must refuse; tests of what the tools say give their own.
    answers: dict[str, tuple[int, str]] = field(default_factory=lambda: {"wipefs": (0, ""), "blkid": (2, "")})

    def __post_init__(self) -> None:
        """Make the folders."""
        for name in ("sys/block", "sys/dev/block", "dev/disk/by-id", "udev", "proc"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        if self.proc is None:
            self.process(1, ["1 0 0:1 / / rw - overlay overlay rw"], "host")

    def host(self, *, real_tools: bool = False) -> Any:
        """Return it as the guard's own Host."""
        root = self.root
        options: dict[str, Any] = {} if real_tools else {"run": lambda argv: self.answers[argv[0]]}
        return kvstrata_blockhost.Host(
            sys=str(root / "sys"),
            proc=str(self.proc or root / "proc"),
            dev=str(root / "dev"),
            udev=str(root / "udev"),
            stand_ins=self.stand_ins,
            **options,
        )

    # --- devices ---

    def folder(self, kernel: str, home: str = "virtual/block") -> Path:
        """Return the folder of sysfs of a device that was made here."""
        link = self.root / "sys" / "block" / kernel
        return link.resolve() if link.exists() else self.root / "sys" / "devices" / home / kernel

    def device(
        self, kernel: str, number: str, size: int, *, home: str = "virtual/block", target: str = "", **files: str
    ) -> Path:
        """Make a whole device in sysfs, and its node.

        Args:
            kernel: its name.
            number: major:minor.
            size: bytes.
            home: folder below sys/devices that it lies in.
            target: what its node leads to, as /dev/loop3 or an image; without, there is no node.
            files: attributes of sysfs by name, "__" for "/".
        """
        folder = self.root / "sys" / "devices" / home / kernel
        usual = {"dev": number, "size": str(size // 512), "ro": "0", "queue__logical_block_size": "512"}
        self.attributes(folder, **{**usual, **files})
        (folder / "holders").mkdir(exist_ok=True)
        (folder / "slaves").mkdir(exist_ok=True)
        self._link(self.root / "sys" / "block" / kernel, folder)
        self._link(self.root / "sys" / "dev" / "block" / number, folder)
        if target:
            self.node(f"/dev/{kernel}", target)
            if Path(target).is_file():
                self.stand_ins[os.path.realpath(target)] = number
        return folder

    def attributes(self, folder: Path, **files: str) -> None:
        """Write files of sysfs; "__" in a name is "/"."""
        for name, value in files.items():
            path = folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}\n")

    def partition(self, kernel: str, index: int, number: str, start: int, size: int) -> Path:
        """Make a partition that the kernel has of a device, in bytes."""
        name = f"{kernel}p{index}"
        folder = self.folder(kernel) / name
        fields = {"dev": number, "partition": str(index), "start": str(start // 512), "size": str(size // 512)}
        self.attributes(folder, **fields)
        (folder / "holders").mkdir(exist_ok=True)
        self._link(self.root / "sys" / "dev" / "block" / number, folder)
        return folder

    def nvme(self, kernel: str, **files: str) -> Path:
        """Make the NVMe controller of a device that lies in its folder; return that."""
        folder = self.folder(kernel).parent
        self.attributes(folder, **{"transport": "pcie", "model": "KIOXIA KCM71RUG3T84", "numa_node": "0", **files})
        self._link(self.folder(kernel) / "device", folder)
        return folder

    def holder(self, held: Path, kernel: str, number: str, size: int = 1 << 20, **files: str) -> Path:
        """Make a device of which `held`, a folder of sysfs, is a part."""
        folder = self.folder(kernel)
        if not folder.exists():
            folder = self.device(kernel, number, size, **files)
        self._link(held / "holders" / kernel, folder)
        self._link(folder / "slaves" / held.name, held)
        return folder

    def node(self, path: str, target: str) -> None:
        """Make a link below /dev."""
        link = self.root / path.lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)

    def by_id(self, name: str, target: str) -> str:
        """Name a device by id; return that name."""
        path = f"/dev/disk/by-id/{name}"
        self.node(path, target)
        return path

    # --- processes ---

    def process(self, pid: int, mountinfo: Iterable[str], namespace: str, *, task: int | None = None) -> Path:
        """Make a process, or a thread of one, that sees these mounts."""
        folder = self.root / "proc" / str(pid) / (f"task/{task}" if task else "")
        (folder / "ns").mkdir(parents=True, exist_ok=True)
        self._link(folder / "ns" / "mnt", Path(f"mnt:[{namespace}]"))
        (folder / "mountinfo").write_text("".join(f"{line}\n" for line in mountinfo))
        return folder

    def opened(self, pid: int, path: str, flags: str, comm: str = "qemu") -> None:
        """Let a process have a device open; `flags` as /proc/PID/fdinfo has them, in octal."""
        folder = self.root / "proc" / str(pid)
        for name in ("fd", "fdinfo"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "comm").write_text(f"{comm}\n")
        (folder / "fdinfo" / "5").write_text(f"pos:\t0\nflags:\t{flags}\nmnt_id:\t1\n")
        self._link(folder / "fd" / "5", self.root / path.lstrip("/"))

    def swaps(self, *paths: str) -> None:
        """Make these the active swap spaces."""
        lines = ["Filename\t\t\tType\t\tSize\tUsed\tPriority", *(f"{path} partition 1 0 -2" for path in paths)]
        (self.root / "proc" / "swaps").write_text("\n".join(lines) + "\n")

    def _link(self, link: Path, target: Path) -> None:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
