"""The table of PCI ids against pci.ids itself."""

from __future__ import annotations

import pytest

from kvstrata.driver.pciids import NVIDIA, UNKNOWN, Device, Modules
from tests.driver.probes import FIXTURES, probe

CHIPS = {
    "GK": "older than Maxwell",
    "GM": "Maxwell",
    "GP": "Pascal",
    "GV": "Volta",
    "TU": "Turing",
    "GA": "Ampere",
    "AD": "Ada",
    "GH": "Hopper",
    "GB": "Blackwell",
}
LINES = (FIXTURES / "pci-ids.txt").read_text().splitlines()


def gpu(device: int) -> Device:
    return Device("0000:01:00.0", NVIDIA, device, 0x0302, 0, "", switch_management=False)


def test_a_device_of_every_block_of_pci_ids_is_of_its_architecture() -> None:
    wrong = {}
    for line in LINES:
        number, name = line.split(" ", 1)
        found = gpu(int(number, 16)).architecture
        # GB112 and GB120 came after the table: they are nothing that it could know.
        if "NVSwitch" not in name and CHIPS[name[:2]] not in found.name and found is not UNKNOWN:
            wrong[line] = found.name
    assert len(LINES) > 50
    assert wrong == {}


@pytest.mark.parametrize(
    ("device", "name", "modules", "first"),
    [
        (0x20B2, "Ampere", Modules.EITHER, 515),  # A100 SXM4 80GB
        (0x26B9, "Ada", Modules.EITHER, 535),  # L40S
        (0x2330, "Hopper", Modules.EITHER, 525),  # H100 SXM5
        (0x2335, "Hopper (H200)", Modules.EITHER, 550),
        (0x2342, "Grace Hopper", Modules.OPEN, 535),
        (0x2901, "Blackwell", Modules.OPEN, 570),  # B200
        (0x3182, "Blackwell Ultra", Modules.OPEN, 580),  # B300
        (0x1B38, "Pascal", Modules.PROPRIETARY, 450),  # P40
        (0x3000, "newer than this table", Modules.OPEN, 580),  # GR100
    ],
)
def test_a_product_has_the_modules_and_the_branch_that_nvidia_says(
    device: int, name: str, modules: Modules, first: int
) -> None:
    found = gpu(device).architecture
    assert (found.name, found.modules, found.first_branch) == (name, modules, first)


def test_the_audio_function_of_a_gpu_is_no_gpu() -> None:
    node = probe("rtx-a5000")
    assert len(node.devices) == 2
    assert [device.address for device in node.gpus] == ["0000:17:00.0"]


@pytest.mark.parametrize(
    ("name", "nvswitches", "nvlink5"),
    [("h100-hgx", 4, 0), ("a100-hgx", 6, 0), ("b200-hgx", 0, 4), ("h100-vm", 0, 0), ("l40s", 0, 0), ("gh200", 0, 0)],
)
def test_nvswitches_are_bridges_of_nvidia_and_those_of_nvlink_5_hide_behind_a_connectx(
    name: str, nvswitches: int, nvlink5: int
) -> None:
    node = probe(name)
    assert (len(node.nvswitches), len(node.nvlink5_switches)) == (nvswitches, nvlink5)


def test_a_bridge_of_an_old_chipset_is_no_nvswitch() -> None:
    nforce = Device("0000:00:00.1", NVIDIA, 0x0369, 0x0680, 0, "", switch_management=False)
    assert not nforce.is_nvswitch
