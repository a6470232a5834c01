"""Sparse files on loop devices that stand in for a node's NVMe drives."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kvstrata.lab import shell
from kvstrata.lab.errors import LabError

_DELETED = " (deleted)"


@dataclass(frozen=True)
class Loop:
    """A loop device and the file behind it; `deleted` when that file is gone."""

    device: str
    image: Path
    deleted: bool


def parse_losetup(text: str) -> list[Loop]:
    """Read the output of `losetup --list --json --output NAME,BACK-FILE` (empty when there are none)."""
    if not text.strip():
        return []
    loops = []
    for entry in json.loads(text)["loopdevices"]:
        backing = entry["back-file"] or ""
        loops.append(Loop(entry["name"], Path(backing.removesuffix(_DELETED)), deleted=backing.endswith(_DELETED)))
    return loops


def attached() -> list[Loop]:
    """Return every loop device of this machine that has a file behind it."""
    return parse_losetup(shell.run(("losetup", "--list", "--json", "--output", "NAME,BACK-FILE")))


def below(loops: Iterable[Loop], folder: Path) -> list[Loop]:
    """Return those of `loops` whose file is, or was, below `folder`."""
    return [loop for loop in loops if loop.image.is_relative_to(folder)]


def check_image(image: Path, size_gib: int) -> None:
    """Raise LabError when the file is there with another size: it may hold data."""
    if image.exists() and image.stat().st_size != size_gib * 2**30:
        raise LabError(
            f"drive image {image} is {image.stat().st_size / 2**30:g} GiB, asked for are {size_gib}: "
            "`lab down` (without --keep-data) removes it"
        )


def ensure_image(image: Path, size_gib: int) -> None:
    """Make the sparse file unless it is there; LabError when it is there with another size."""
    check_image(image, size_gib)
    if not image.exists():
        image.parent.mkdir(parents=True, exist_ok=True)
        with image.open("xb") as file:
            file.truncate(size_gib * 2**30)


def attach(image: Path, *, wanted: str | None = None) -> str:
    """Return the loop device of `image`, attaching it if need be, to the device `wanted` if that is free.

    A node's container remembers its devices by number, hence `wanted` when one is started again.
    """
    loops = attached()
    for loop in loops:
        if loop.image == image:
            if not loop.deleted:
                return loop.device
            # The file was removed and made anew: what is attached is the old one.
            detach([loop])
    taken = {loop.device for loop in attached()}
    if wanted is not None and wanted not in taken and Path(wanted).exists():
        shell.run(("losetup", "--partscan", wanted, str(image)))
        return wanted
    return shell.run(("losetup", "--find", "--show", "--partscan", str(image))).strip()


def detach(loops: Iterable[Loop]) -> None:
    """Detach the devices. The kernel does it by itself later where something still has one open."""
    for loop in loops:
        shell.run(("losetup", "--detach", loop.device))
