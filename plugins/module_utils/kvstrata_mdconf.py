"""Our lines of mdadm.conf, and whether an initramfs knows them. Without them md/kvs-d0 can come back as md127."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping

BEGIN = "# BEGIN kvstrata drives: arrays of kvstrata's inventory; lines between these marks are its own"
END = "# END kvstrata drives"
# Debian and Ubuntu have the first, RHEL and Rocky the second.
PLACES = ("/etc/mdadm/mdadm.conf", "/etc/mdadm.conf")
# Where update-initramfs and dracut put the image of a kernel.
_IMAGES = ("/boot/initrd.img-{kernel}", "/boot/initramfs-{kernel}.img")
_BLOCK = re.compile(rf"^{re.escape(BEGIN)}\n(.*?)^{re.escape(END)}\n", re.MULTILINE | re.DOTALL)
_LINE = re.compile(r"^ARRAY /dev/md/kvs-(\S+) .*UUID=(\S+)", re.MULTILINE)


def place() -> str:
    """Return the mdadm.conf of this system: where there is one, else where its distribution would have it."""
    if os.path.exists(PLACES[0]) or os.path.isdir(os.path.dirname(PLACES[0])):
        return PLACES[0]
    return PLACES[1]


def ours(text: str) -> dict[str, str]:
    """Return name of the drive -> UUID of the array, of the lines that are ours."""
    block = _BLOCK.search(text)
    return dict(_LINE.findall(block.group(1))) if block else {}


def merged(text: str, arrays: Mapping[str, str], plain: Iterable[str]) -> str:
    """Return the text of mdadm.conf with a line for each of our arrays, and all else as it was.

    Args:
        text: the file as it is, empty where there is none.
        arrays: name of the drive -> UUID of the array, for the drives of the inventory that are arrays.
        plain: names of the drives of the inventory that are none; a line of theirs is gone.

    An array that left the inventory keeps its line: it is left alone.
    """
    known = {**ours(text), **arrays}
    for name in plain:
        known.pop(name, None)
    lines = [f"ARRAY /dev/md/kvs-{name} metadata=1.2 UUID={uuid}\n" for name, uuid in sorted(known.items())]
    block = f"{BEGIN}\n{''.join(lines)}{END}\n" if lines else ""
    if _BLOCK.search(text):
        return _BLOCK.sub(lambda _: block, text, count=1)
    gap = "" if not text or text.endswith("\n") else "\n"
    return f"{text}{gap}{block}"


def image_of(kernel: str, root: str = "") -> str | None:
    """Return the initramfs of a kernel, or None where there is none, as on a machine that boots without."""
    paths = [root + path.format(kernel=kernel) for path in _IMAGES]
    return next((path for path in paths if os.path.exists(path)), None)


def digest(text: str) -> str:
    """Return the sha256 of our lines. What an initramfs was last made with is remembered by it.

    Not by comparing times: a node's clock may have been wrong when one of the files was written. A kernel that is
    installed later gets an initramfs with the file as it is then.
    """
    block = _BLOCK.search(text)
    return hashlib.sha256((block.group(1) if block else "").encode()).hexdigest()


def spelled(uuid: str) -> str:
    """Return the UUID of an array, 32 hex digits, as mdadm spells it: in four groups."""
    return ":".join(uuid[start : start + 8] for start in range(0, 32, 8)) if uuid else ""
