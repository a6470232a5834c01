"""Drives made by hand, as the guard's look returns them."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.kvstrata_blockcontent import Content, Signature
from ansible.module_utils.kvstrata_blockdev import Array, Device
from ansible.module_utils.kvstrata_blocktables import Member
from ansible.module_utils.kvstrata_blockuse import Node

GIB = 1 << 30
BY_ID = "/dev/disk/by-id"
UUID = "b3f4b7d2-0000-4000-8000-000000000001"
ARRAY_UUID = "aaaaaaaa000000000000000000000001"


def path(index: int) -> str:
    return f"{BY_ID}/nvme-eui.{index:016d}"


def device(index: int = 0, **changes: Any) -> Device:
    """A blank NVMe drive of 3576 GiB that nobody uses."""
    kernel, number = f"nvme{index}n1", f"259:{index}"
    fields: dict[str, Any] = {
        "kind": "block",
        "kernel": kernel,
        "number": number,
        "whole": True,
        "drive": True,
        "size": 3576 * GIB,
        "lba_bytes": 512,
        "serial": f"S{index}",
        "model": "ACME SSD",
        "wwid": f"eui.{index:016d}",
        "nsid": 1,
        "numa_node": 0,
        "controller": f"nvme{index}",
        "transport": "pcie",
        "paths": (f"nvme{index}",),
        "nodes": (Node(kernel, number, "self", "", ""),),
        "content": Content(size=3576 * GIB, sampled=True, digest="0"),
        "token": f"{index:016x}",
        **changes,
    }
    return Device(changes.pop("path", path(index)), **{key: fields[key] for key in fields if key != "path"})


def content(*signatures: Signature, **changes: Any) -> Content:
    return Content(**{"size": 3576 * GIB, "signatures": signatures, "sampled": True, "digest": "1", **changes})


def filesystem(label: str = "kvs-d0", fstype: str = "xfs") -> Content:
    return content(Signature(fstype, 0, label, UUID))


def member(index: int, *, name: str = "any:kvs-d0", role: int | None = None, **changes: Any) -> Device:
    """A member of our array of two; assembled only with `array`."""
    signature = Signature("linux_raid_member", 4096, name, ARRAY_UUID)
    found = Member("1.2", 4096, ARRAY_UUID, name, 0, 2, index if role is None else role)
    return device(index, content=content(signature, member=found), **changes)


def assembled(index: int, inside: Content) -> Device:
    """A member of our running array md127 of two drives."""
    kernel, number = f"nvme{index}n1", f"259:{index}"
    nodes = (Node(kernel, number, "self", "", ""), Node("md127", "9:127", "holder", "RAID raid0", kernel))
    array = Array("md127", "/dev/md127", 7152 * GIB, inside, ("nvme0n1", "nvme1n1"))
    return member(index, nodes=nodes, array=array, token="")
