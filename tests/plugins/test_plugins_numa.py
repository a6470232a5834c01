"""kvstrata_numa on trees that look like the sysfs of other machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.modules import run_module

GPU = {"class": "0x030200", "vendor": "0x10de"}
NVME = {"class": "0x010802", "vendor": "0x144d"}
NIC = {"class": "0x020000", "vendor": "0x15b3"}


class Machine:
    """A machine's /sys and /dev below a folder."""

    def __init__(self, folder: Path, nodes: dict[int, str]) -> None:
        self.sys, self.dev = folder / "sys", folder / "dev"
        (self.sys / "bus/pci/devices").mkdir(parents=True)
        (self.dev / "disk/by-id").mkdir(parents=True)
        for number, cpus in nodes.items():
            node = self.sys / f"devices/system/node/node{number}"
            node.mkdir(parents=True)
            (node / "cpulist").write_text(f"{cpus}\n")
            (node / "meminfo").write_text(f"Node {number} MemTotal:       {64 << 20} kB\nNode {number} MemFree: 1 kB\n")
            (node / "distance").write_text(" ".join("10" if other == number else "21" for other in nodes) + "\n")

    def pci(self, address: str, kind: dict[str, str], node: int | None, driver: str = "") -> Path:
        device = self.sys / "devices" / f"pci0000:{address[5:7]}" / address
        device.mkdir(parents=True)
        for name, text in kind.items():
            (device / name).write_text(f"{text}\n")
        if node is not None:
            (device / "numa_node").write_text(f"{node}\n")
        if driver:
            (self.sys / "bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
            (device / "driver").symlink_to(self.sys / "bus/pci/drivers" / driver)
        (self.sys / "bus/pci/devices" / address).symlink_to(device)
        return device

    def drive(self, address: str, name: str, node: int | None, namespaces: list[str], *ids: str) -> None:
        controller = self.pci(address, NVME, node, "nvme") / "nvme" / name
        for namespace in namespaces:
            (controller / namespace).mkdir(parents=True)
        (self.dev / f"{name}n1").touch()
        (self.dev / f"{name}n1p1").touch()
        for link in ids:
            (self.dev / "disk/by-id" / link).symlink_to(f"../../{name}n1")
            (self.dev / "disk/by-id" / f"{link}-part1").symlink_to(f"../../{name}n1p1")

    def map(self, tmp: Path, **more: Any) -> dict[str, Any]:
        found = run_module(
            "kvstrata_numa",
            {"path": str(tmp / "facts.d/kvstrata_numa.fact"), "sys": str(self.sys), "dev": str(self.dev), **more},
        )
        numa: dict[str, Any] = found["numa"]
        return numa


@pytest.fixture
def two_sockets(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path, {0: "0-15", 1: "16-31"})
    machine.pci("0000:97:00.0", GPU, 1, "nvidia")
    machine.pci("0000:17:00.0", GPU, 0, "nvidia")
    machine.pci("0000:17:00.1", {"class": "0x040300", "vendor": "0x10de"}, 0)
    machine.pci("10000:01:00.0", GPU, 1)
    machine.drive("0000:01:00.0", "nvme0", 0, ["nvme0n1"], "nvme-eui.00", "nvme-Model_A")
    machine.drive("0000:81:00.0", "nvme1", 1, ["nvme1c1n1"], "nvme-eui.01")
    (machine.pci("0000:31:00.0", NIC, 1) / "net" / "ens1f0").mkdir(parents=True)
    return machine


def test_two_sockets_are_mapped_with_their_gpus_in_the_order_of_nvidia_smi(
    two_sockets: Machine, tmp_path: Path
) -> None:
    numa = two_sockets.map(tmp_path)
    assert numa["nodes"] == {
        "0": {"cpus": "0-15", "memory_gib": 64, "distance": [10, 21]},
        "1": {"cpus": "16-31", "memory_gib": 64, "distance": [21, 10]},
    }
    assert [(gpu["pci"], gpu["numa_node"]) for gpu in numa["gpus"]] == [
        ("0000:17:00.0", 0),
        ("0000:97:00.0", 1),
        ("10000:01:00.0", 1),
    ]
    assert numa["nics"] == [{"pci": "0000:31:00.0", "numa_node": 1, "interfaces": ["ens1f0"]}]


def test_a_drive_is_mapped_by_its_names_also_with_native_multipath(two_sockets: Machine, tmp_path: Path) -> None:
    drives = two_sockets.map(tmp_path)["nvme"]
    assert drives == [
        {"pci": "0000:01:00.0", "numa_node": 0, "ids": ["nvme-Model_A", "nvme-eui.00"]},
        {"pci": "0000:81:00.0", "numa_node": 1, "ids": ["nvme-eui.01"]},
    ]


def test_the_kernel_may_swap_the_names_of_two_drives(tmp_path: Path) -> None:
    maps = []
    for boot, (first, second) in enumerate([("nvme0", "nvme1"), ("nvme1", "nvme0")]):
        machine = Machine(tmp_path / str(boot), {0: "0-7"})
        machine.drive("0000:01:00.0", first, 0, [f"{first}n1"], "nvme-eui.00")
        machine.drive("0000:02:00.0", second, 0, [f"{second}n1"], "nvme-eui.01")
        maps.append(machine.map(tmp_path))
    assert maps[0] == maps[1]


def test_on_one_socket_a_device_of_which_the_firmware_does_not_tell_is_there(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {0: "0-7"})
    machine.drive("0000:01:00.0", "nvme0", -1, ["nvme0n1"])
    machine.pci("0000:02:00.0", GPU, None)
    numa = machine.map(tmp_path)
    assert [numa["nvme"][0]["numa_node"], numa["gpus"][0]["numa_node"]] == [0, 0]


def test_on_two_sockets_the_node_of_such_a_device_is_not_known(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {0: "0-7", 1: "8-15"})
    machine.drive("0000:01:00.0", "nvme0", -1, ["nvme0n1"])
    assert machine.map(tmp_path)["nvme"][0]["numa_node"] is None


def test_a_gpus_own_memory_does_not_make_a_second_socket(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {0: "0-71", 1: ""})
    machine.drive("0009:01:00.0", "nvme0", -1, ["nvme0n1"])
    assert machine.map(tmp_path)["nvme"][0]["numa_node"] == 0


def test_a_kernel_without_numa_has_no_nodes(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {})
    machine.drive("0000:01:00.0", "nvme0", -1, ["nvme0n1"])
    numa = machine.map(tmp_path)
    assert (numa["nodes"], numa["nvme"][0]["numa_node"]) == ({}, None)


def test_a_gpu_given_to_virtual_machines_has_no_number(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {0: "0-7"})
    machine.pci("0000:17:00.0", GPU, 0, "vfio-pci")
    machine.pci("0000:3d:00.0", GPU, 0, "nouveau")
    assert [gpu["pci"] for gpu in machine.map(tmp_path)["gpus"]] == ["0000:3d:00.0"]


def test_a_container_maps_nothing_of_its_host(two_sockets: Machine, tmp_path: Path) -> None:
    assert two_sockets.map(tmp_path, container=True) == {
        **{"container": True, "nodes": {}},
        **{"gpus": [], "nvme": [], "nics": []},
    }


def test_the_fact_is_written_once_and_check_mode_writes_nothing(two_sockets: Machine, tmp_path: Path) -> None:
    path = tmp_path / "facts.d" / "kvstrata_numa.fact"
    args = {"path": str(path), "sys": str(two_sockets.sys), "dev": str(two_sockets.dev)}
    assert run_module("kvstrata_numa", args, check_mode=True)["changed"] is True
    assert not path.exists()
    first = run_module("kvstrata_numa", args)
    assert first["changed"] is True
    assert json.loads(path.read_text()) == first["ansible_facts"]["kvstrata_numa"]
    assert path.stat().st_mode & 0o777 == 0o644
    assert run_module("kvstrata_numa", args)["changed"] is False
    assert run_module("kvstrata_numa", args, check_mode=True)["changed"] is False


def test_a_map_that_is_switched_off_is_removed_and_places_nothing(two_sockets: Machine, tmp_path: Path) -> None:
    two_sockets.map(tmp_path)
    assert two_sockets.map(tmp_path, state="absent")["nodes"] == {}
    assert list((tmp_path / "facts.d").iterdir()) == []


def test_this_machine_can_be_mapped(tmp_path: Path) -> None:
    numa = run_module("kvstrata_numa", {"path": str(tmp_path / "x.fact")})["numa"]
    shown = {path.name.removeprefix("node") for path in Path("/sys/devices/system/node").glob("node[0-9]*")}
    assert set(numa["nodes"]) == shown
