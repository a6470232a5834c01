import json
import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kvstrata.lab import vmdrives, vmmachine
from kvstrata.lab.vmspec import VmSpec


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KVSTRATA_CACHE", str(tmp_path))


def values(line: list[str], option: str) -> list[str]:
    return [value for name, value in pairwise(line) if name == option]


def test_only_loopback_leads_into_a_machine() -> None:
    (net,) = values(vmmachine.argv(VmSpec("vm2")), "-netdev")
    assert re.findall(r"hostfwd=(\S+)", net) == ["tcp:127.0.0.1:22222-:22"]


def test_a_machine_shows_no_screen_and_takes_commands_on_its_socket_alone() -> None:
    line = vmmachine.argv(VmSpec("vm1"))
    assert values(line, "-display") == ["none"]
    assert values(line, "-qmp") == [f"unix:{VmSpec('vm1').socket},server=on,wait=off"]
    assert not {"-monitor", "-mon", "-vnc", "-gdb"} & set(line)


def test_kvm_is_never_used() -> None:
    assert [accel.split(",")[0] for accel in values(vmmachine.argv(VmSpec("vm1")), "-accel")] == ["tcg"]


def test_all_machines_have_the_hardware_of_the_snapshot() -> None:
    hardware = vmmachine.hardware()
    assert vmmachine.argv(VmSpec("vm1", drives=5))[: len(hardware)] == hardware
    assert vmmachine.argv(VmSpec("vm2", shared=True))[: len(hardware)] == hardware


def test_there_is_a_port_for_every_drive_and_no_two_in_one_place() -> None:
    ports = [device for device in values(vmmachine.hardware(), "-device") if "pcie-root-port" in device]
    places = {re.search(r"addr=([^,]+)", port).group(1) for port in ports}  # type: ignore[union-attr]
    assert len(ports) == len(places) == 24


def test_a_snapshot_is_read_by_a_quoted_name(tmp_path: Path) -> None:
    line = vmmachine.argv(VmSpec("vm1"), memory=Path("/cache/it's here/memory"))
    assert values(line, "-incoming") == ["""exec:cat '/cache/it'"'"'s here/memory'"""]
    assert "-incoming" not in vmmachine.argv(VmSpec("vm1"))


def test_the_root_disk_has_a_serial_and_its_own_overlay() -> None:
    line = vmmachine.argv(VmSpec("vm1"))
    root = json.loads(values(line, "-blockdev")[0])
    assert root["file"]["filename"] == str(VmSpec("vm1").disk)
    assert any("serial=KVSROOT" in device for device in values(line, "-device"))


def test_a_pid_file_of_another_process_is_no_machine() -> None:
    spec = VmSpec("vm1")
    assert vmmachine.pid(spec) is None
    spec.folder.mkdir(parents=True)
    # This process lives, but it is no QEMU of that machine.
    spec.pid_file.write_text(f"{os.getpid()}\n")
    assert vmmachine.pid(spec) is None
    assert vmmachine.stop(spec) is False
    spec.pid_file.write_text("nonsense")
    assert vmmachine.pid(spec) is None


def test_drives_have_serials_of_their_own_on_all_machines() -> None:
    every = [drive for name in ("vm1", "vm2") for drive in vmdrives.drives(VmSpec(name, drives=24))]
    serials = {drive.serial for drive in every}
    assert len(serials) == 48
    # What fits an NVMe controller's field.
    assert max(map(len, serials)) <= 20
    assert every[1].by_id == "/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_KVSVM1D01"


def test_a_plugged_drive_has_the_sectors_asked_for_and_writes_to_its_file() -> None:
    spec = VmSpec("vm1", drives=2, lba=4096)
    node, device = list(vmdrives.plugs(spec))[1]
    assert node["file"]["filename"] == str(spec.folder / "nvme1.img")
    assert node["driver"] == "raw"
    assert device == {
        "driver": "nvme",
        "id": "nvme-d1",
        "serial": "KVSVM1D01",
        "bus": "rp1",
        "drive": "d1",
        "logical_block_size": 4096,
        "physical_block_size": 4096,
    }


def test_a_shared_machine_has_two_namespaces_of_one_controller_and_two_controllers_of_one_namespace() -> None:
    devices = list(vmdrives.cold_devices(VmSpec("vm1", drives=1, shared=True)))
    namespaces = [device for device in devices if device["driver"] == "nvme-ns"]
    on_pair = [device for device in namespaces if device["bus"] == "nvme-pair"]
    assert [device["nsid"] for device in on_pair] == [1, 2]
    paths = [device for device in devices if device.get("subsys")]
    assert len({device["id"] for device in paths}) == 2
    assert len({device["serial"] for device in paths}) == 1
    assert [device["drive"] for device in namespaces] == ["pair1", "pair2", "paths"]
    ports = [device["bus"] for device in devices if device["driver"] == "nvme"]
    assert len(ports) == len(set(ports))


def test_a_drives_digest_tells_a_byte_a_zero_written_and_a_hole(tmp_path: Path) -> None:
    image = tmp_path / "drive.img"
    seen = set()
    with image.open("xb") as file:
        file.truncate(64 << 20)
    seen.add(vmdrives.digest(image))
    assert vmdrives.digest(image) in seen
    # (where, what): the same zeros written into a hole are no other content, and yet something was written.
    for where, what in ((0, b"\0" * 4096), (0, b"x"), (32 << 20, b"x" * 4096), ((64 << 20) - 1, b"\1")):
        with image.open("r+b") as file:
            file.seek(where)
            file.write(what)
        assert vmdrives.digest(image) not in seen
        seen.add(vmdrives.digest(image))
    with image.open("r+b") as file:
        file.truncate(65 << 20)
    assert vmdrives.digest(image) not in seen


def test_what_was_written_is_the_file_and_qemus_count_of_that_drive() -> None:
    spec = VmSpec("vm1", drives=2)
    spec.folder.mkdir(parents=True)
    for drive in vmdrives.drives(spec):
        drive.image.write_bytes(b"")

    def entry(node: str, writes: int) -> dict[str, Any]:
        stats = {"wr_operations": writes, "wr_bytes": writes * 512, "unmap_operations": 0, "rd_operations": 99}
        return {"node-name": node, "qdev": f"/machine/peripheral/nvme-{node}", "stats": stats}

    found = vmdrives.written(spec, [entry("root", 7), entry("d1", 3), entry("d0", 0), {"stats": {}}])
    assert [(drive.serial, drive.writes, drive.bytes) for drive in found] == [
        ("KVSVM1D00", 0, 0),
        ("KVSVM1D01", 3, 1536),
    ]
