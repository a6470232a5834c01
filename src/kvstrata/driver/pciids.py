"""What a PCI id says of an NVIDIA device: its architecture, and which driver branches serve it.

Ids are those of pci.ids (github.com/pciutils/pciids, as of 2026-08-22). A chip has a range of ids of its own, so ranges
stand here rather than a thousand products. Branches are the first whose README at
github.com/NVIDIA/open-gpu-kernel-modules lists a device of the architecture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

NVIDIA = 0x10DE
MELLANOX = 0x15B3
# PCI class codes without the programming interface (pci.ids, "C 03" and "C 06").
_DISPLAY = frozenset({0x0300, 0x0302})
_OTHER_BRIDGE = 0x0680
LAST_LEGACY_BRANCH = 580
"""The last branch for Maxwell, Pascal and Volta (NVIDIA's Unix feature deprecation schedule)."""
LAST_PROPRIETARY_BRANCH = 610
"""NVIDIA's driver installation guide lists proprietary modules for 610; the guide of 620 has open ones only."""
FIRST_OPEN_BRANCH = 515


class Modules(StrEnum):
    """Which kernel modules serve an architecture."""

    PROPRIETARY = "proprietary modules only: no GSP"
    EITHER = "both"
    OPEN = "open modules only"


@dataclass(frozen=True)
class Architecture:
    """A generation of GPUs as far as the driver is concerned."""

    name: str
    modules: Modules
    first_branch: int
    """The oldest branch that serves it."""
    last_branch: int | None = None
    """The newest one, where newer ones no longer do."""


TOO_OLD = Architecture("older than Maxwell", Modules.PROPRIETARY, 0, 0)
MAXWELL = Architecture("Maxwell", Modules.PROPRIETARY, 450, LAST_LEGACY_BRANCH)
PASCAL = Architecture("Pascal", Modules.PROPRIETARY, 450, LAST_LEGACY_BRANCH)
VOLTA = Architecture("Volta", Modules.PROPRIETARY, 450, LAST_LEGACY_BRANCH)
TURING = Architecture("Turing", Modules.EITHER, 515)
AMPERE = Architecture("Ampere", Modules.EITHER, 515)
ADA = Architecture("Ada", Modules.EITHER, 535)
HOPPER = Architecture("Hopper", Modules.EITHER, 525)
H200 = Architecture("Hopper (H200)", Modules.EITHER, 550)
GRACE_HOPPER = Architecture("Grace Hopper", Modules.OPEN, 535)
BLACKWELL = Architecture("Blackwell", Modules.OPEN, 570)
BLACKWELL_ULTRA = Architecture("Blackwell Ultra", Modules.OPEN, 580)
UNKNOWN = Architecture("newer than this table", Modules.OPEN, 580)

# Single products whose first branch is another than their chip's; before the ranges.
_PRODUCTS: Mapping[int, Architecture] = {
    0x2335: H200,  # H200 SXM 141GB
    0x233B: H200,  # H200 NVL
    0x2342: GRACE_HOPPER,  # GH200 120GB / 480GB
    0x2343: GRACE_HOPPER,
    0x2345: GRACE_HOPPER,
    0x2348: GRACE_HOPPER,  # GH200 144G HBM3e
}
_RANGES: tuple[tuple[int, int, Architecture], ...] = (
    (0x0000, 0x133F, TOO_OLD),
    (0x1340, 0x15BF, MAXWELL),  # GM10x, GM206
    (0x15C0, 0x15FF, PASCAL),  # GP100
    (0x1600, 0x16FF, MAXWELL),  # GM204M
    (0x1700, 0x173F, PASCAL),  # GP100
    (0x1740, 0x1AFF, MAXWELL),  # GM108M, GM200
    (0x1B00, 0x1D7F, PASCAL),  # GP10x
    (0x1D80, 0x1DFF, VOLTA),  # GV100
    (0x1E00, 0x1FFF, TURING),  # TU10x
    (0x2080, 0x20FF, AMPERE),  # GA100
    (0x2180, 0x21FF, TURING),  # TU116
    (0x2200, 0x229F, AMPERE),  # GA102
    (0x2300, 0x23FF, HOPPER),  # GH100
    (0x2400, 0x267F, AMPERE),  # GA103 to GA107
    (0x2680, 0x28FF, ADA),  # AD10x
    (0x2900, 0x2FFF, BLACKWELL),  # GB100, GB102, GB20x
    (0x3180, 0x31FF, BLACKWELL_ULTRA),  # GB110
)


@dataclass(frozen=True)
class Device:
    """A PCI function as the probe saw it."""

    address: str
    """As 0000:06:00.0."""
    vendor: int
    device: int
    pci_class: int
    """Base class and subclass, as 0x0302."""
    numa_node: int
    driver: str
    switch_management: bool
    """Whether its VPD names it the management interface of NVLink 5 switches (SW_MNG)."""

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU; NVIDIA's audio, USB and bridge functions are none."""
        return self.vendor == NVIDIA and self.pci_class in _DISPLAY

    @property
    def is_nvswitch(self) -> bool:
        """Whether it is an NVSwitch that shows itself on the bus: a bridge of NVIDIA's, as 1af1 and 22a3.

        Chipsets of NVIDIA's past have bridges of this class too, all below 0x1a00.
        """
        return self.vendor == NVIDIA and self.pci_class == _OTHER_BRIDGE and self.device >= 0x1A00

    @property
    def is_nvlink5_switch(self) -> bool:
        """Whether it manages NVSwitches of the fourth generation, which show no PCI function of their own.

        They are behind a ConnectX bridge; NVIDIA's driver container knows them by the same word in its VPD.
        """
        return self.vendor == MELLANOX and self.switch_management

    @property
    def architecture(self) -> Architecture:
        """The generation of a GPU."""
        if self.device in _PRODUCTS:
            return _PRODUCTS[self.device]
        return next((found for low, high, found in _RANGES if low <= self.device <= high), UNKNOWN)

    def __str__(self) -> str:
        """Return the device as lspci -nn would name it, with its architecture."""
        return f"{self.address} [{self.vendor:04x}:{self.device:04x}] {self.architecture.name}"


def devices_of(entries: Iterable[Mapping[str, Any]]) -> tuple[Device, ...]:
    """Return the devices of a probe, in the order of their addresses."""
    found = (
        Device(
            address=str(entry["address"]),
            vendor=int(str(entry["vendor"]), 16),
            device=int(str(entry["device"]), 16),
            pci_class=int(str(entry["class"]), 16) >> 8,
            numa_node=int(entry["numa_node"]),
            driver=str(entry["driver"]),
            switch_management=bool(entry["switch_management"]),
        )
        for entry in entries
    )
    return tuple(sorted(found, key=lambda device: device.address))
