"""What the tests of the guard share: machines of files with one NVMe drive, and judging."""

from __future__ import annotations

from typing import Any

from kvstrata.lab.guardfuzz.code import kvstrata_guard
from kvstrata.lab.guardfuzz.machine import Machine

SIZE = 32 << 20
MOUNT = "/var/lib/kvstrata/drives/d0"


def nvme(machine: Machine, index: int = 0, *, namespace: int = 1, home: str = "", **files: str) -> str:
    """Add an NVMe drive of zeros to a machine; return its name by id."""
    kernel = f"nvme{index}n{namespace}"
    image = machine.root / f"{kernel}.img"
    with image.open("wb") as stream:
        stream.truncate(SIZE)
    fields = {"wwid": f"eui.{index}{namespace}", "nsid": str(namespace), **files}
    where = home or f"pci0000:00/0000:0{index + 1}:00.0/nvme/nvme{index}"
    machine.device(kernel, f"259:{index * 16 + namespace}", SIZE, home=where, target=str(image), **fields)
    machine.nvme(kernel, serial=f"S{index}")
    return machine.by_id(f"nvme-eui.{index}{namespace}", str(image))


def entry(device: str | list[str], name: str = "d0", **fields: Any) -> dict[str, Any]:
    """Return an entry of kvstrata_drives."""
    key = "device" if isinstance(device, str) else "devices"
    return {"name": name, key: device, "mount": f"/var/lib/kvstrata/drives/{name}", **fields}


def judge(host: Any, *entries: dict[str, Any], tokens: dict[str, Any] | None = None) -> Any:
    """Look at all drives of a host and judge them; returns the Verdict."""
    drives = [kvstrata_guard.Drive.read(each) for each in entries]
    return kvstrata_guard.judge(drives, kvstrata_guard.survey(drives, host), tokens or {})


def reasons(verdict: Any, drive: str = "d0") -> list[str]:
    """Return the reasons for which a drive is refused."""
    return [refusal.reason for refusal in verdict.refusals if refusal.drive == drive]


def states(verdict: Any) -> dict[str, str]:
    """Return what each drive is."""
    return {name: drive.state for name, drive in verdict.drives.items()}
