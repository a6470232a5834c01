"""What a virtual machine of the lab is: its drives, its port, its files; checked before anything is touched."""

from dataclasses import dataclass
from pathlib import Path

from kvstrata.lab import paths
from kvstrata.lab.errors import LabError

NAMES = ("vm1", "vm2")
# As many PCIe ports as the machine has: three slots of eight functions (see vmmachine).
MAX_DRIVES = 24
# XFS refuses less than 300 MB; beyond 1 TiB a sparse file no longer says anything about the disk under it.
DRIVE_GIB = range(1, 1025)
LBA_BYTES = (512, 4096)
# Machine k (from 1) takes SSH on 127.0.0.1, port FIRST_PORT + k.
FIRST_PORT = 22220
# The path of a unix socket has no room for more (sun_path in unix(7), with its closing zero).
_MOST_SOCKET_PATH = 107


def vms_dir() -> Path:
    """Return the folder holding the key that all machines admit, and one folder per machine."""
    return paths.labs_dir() / "vm"


@dataclass(frozen=True)
class VmSpec:
    """One machine with `drives` NVMe controllers of one namespace each, `drive_gib` GiB in sectors of `lba` bytes.

    `shared` adds what a site may have and kvstrata must refuse: one controller with two namespaces, and one
    namespace behind two controllers. Raises LabError naming what cannot be.
    """

    name: str
    drives: int = 2
    drive_gib: int = 4
    lba: int = 512
    shared: bool = False

    def __post_init__(self) -> None:
        """Check every field; the error names what was given and what is allowed."""
        if self.name not in NAMES:
            raise LabError(f"machine {self.name!r}: allowed are {', '.join(NAMES)}")
        most = MAX_DRIVES - (3 if self.shared else 0)
        if not 0 <= self.drives <= most:
            raise LabError(f"{self.drives} drives: allowed are 0 to {most}")
        if self.drive_gib not in DRIVE_GIB:
            raise LabError(f"drive size {self.drive_gib} GiB: allowed are {DRIVE_GIB.start} to {DRIVE_GIB.stop - 1}")
        if self.lba not in LBA_BYTES:
            raise LabError(f"sectors of {self.lba} bytes: allowed are {' and '.join(map(str, LBA_BYTES))}")
        if len(str(self.socket)) > _MOST_SOCKET_PATH:
            raise LabError(
                f"{self.socket} is too long a path for a socket ({_MOST_SOCKET_PATH} bytes at most): "
                "set KVSTRATA_CACHE to a shorter one"
            )

    @property
    def port(self) -> int:
        """The port of 127.0.0.1 that leads to the machine's sshd."""
        return FIRST_PORT + 1 + NAMES.index(self.name)

    @property
    def folder(self) -> Path:
        """Everything of the machine that `down` removes."""
        return vms_dir() / self.name

    @property
    def socket(self) -> Path:
        """Where QEMU takes commands."""
        return self.folder / "qmp.sock"

    @property
    def pid_file(self) -> Path:
        """The file with QEMU's process id."""
        return self.folder / "qemu.pid"

    @property
    def disk(self) -> Path:
        """The root disk: an overlay over the image that all machines share."""
        return self.folder / "root.qcow2"

    @property
    def console(self) -> Path:
        """What the machine printed on its serial console."""
        return self.folder / "console.log"
