"""A node: GPUs, DRAM, drives, network; from a file or by name.

Drives that stand for their kind where a node is named only by its GPUs, from their data sheets:

| name | source |
|---|---|
| gen4 | KIOXIA CM6-R 3.84 TB: reads 6.9 GB/s, writes 4.2 GB/s, 1 drive write per day for 5 years |
| gen5 | Samsung PM9D3a 7.68 TB: reads 12.0 GB/s, writes 6.8 GB/s, 14,016 TBW |
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from kvstrata.plan.figures import Basis, Figure, assumed
from kvstrata.plan.gpus import GPUS, Gpu, gpu, parse_gpu
from kvstrata.plan.reading import BadInputError, Fields, document

GIB = 1 << 30
_YEARS, _DAYS = 5, 365


@dataclass(frozen=True)
class Drive:
    """One drive, or one RAID0 that holds one store."""

    name: str
    read_gbps: Figure
    write_gbps: Figure
    """10^9 bytes a second."""
    size_gb: float
    """10^9 bytes, as drives are sold."""
    tbw: Figure | None
    """10^12 bytes that may be written to it in its life."""
    store_gib: int | None = None
    """What its store may hold by the inventory, in GiB."""

    @property
    def usable_gib(self) -> float:
        """What the caches keep on it: three quarters of the store, as playbooks/vars/roles.yml has it."""
        return 0.75 * (self.store_gib if self.store_gib is not None else suggested_store_gib(self.size_gb))


def suggested_store_gib(size_gb: float) -> int:
    """Return the largest store for a drive: Kvrocks can take twice that for a while, and some room is left (5 %)."""
    return max(1, int(0.95 * size_gb * 1e9 / GIB / 2))


@dataclass(frozen=True)
class Node:
    """One machine."""

    name: str
    gpu: Gpu
    gpus: int
    dram_gib: Figure
    dram_gbps: Figure
    cpu_cores: Figure
    nic_gbit: Figure
    """10^9 bits a second, one direction, between nodes."""
    drives: tuple[Drive, ...]


_DRIVES = {
    "gen4": ("KIOXIA CM6-R 3.84 TB", 6.9, 4.2, 3840.0, 1.0 * 3.84 * _DAYS * _YEARS),
    "gen5": ("Samsung PM9D3a 7.68 TB", 12.0, 6.8, 7680.0, 14016.0),
}
DRIVES = tuple(_DRIVES)


def drive(kind: str, name: str) -> Drive:
    """Return a drive of a known kind; BadInputError names those there are."""
    if kind not in _DRIVES:
        raise BadInputError("kind of a drive", kind, f"one of {', '.join(DRIVES)}")
    model, read, write, size, tbw = _DRIVES[kind]
    source = f"data sheet of {model} (kvstrata/plan/nodes.py)"
    figures = [Figure(value, Basis.DATA_SHEET, source) for value in (read, write, tbw)]
    return Drive(name, figures[0], figures[1], size, figures[2])


def named_node(name: str) -> Node:
    """Return a node of eight GPUs of a kind, named as "8xH100-SXM" (1 to 16), with a host that is assumed around them.

    Host: 2 TiB of DRAM at 300 GB/s, 112 cores, 200 Gbit/s, eight drives (gen5 beside B200, otherwise gen4). L40S: half
    of the DRAM. GH200: 72 cores and 480 GiB of LPDDR5X at 384 GB/s (data sheet: up to 512) for each GPU.

    Raises:
        BadInputError: for another name.
    """
    count, _, kind = name.partition("x")
    if not count.isdigit() or not 1 <= int(count) <= 16 or kind.lower() not in [known.lower() for known in GPUS]:
        raise BadInputError("node", name, f"a file, or 1 to 16 GPUs as 8xH100-SXM, of {', '.join(GPUS)}")
    made, gpus = gpu(kind), int(count)
    around = f"a usual host for {made.name} (kvstrata/plan/nodes.py)"
    dram, dram_gbps, cores = 2048.0, 300.0, 112.0
    if made.name == "L40S":
        dram = 1024.0
    elif made.name == "GH200":
        dram, dram_gbps, cores = 480.0 * gpus, 384.0 * gpus, 72.0 * gpus
    drives = tuple(drive("gen5" if made.name == "B200" else "gen4", f"d{index}") for index in range(8))
    return Node(
        name,
        made,
        gpus,
        assumed(dram, around),
        assumed(dram_gbps, around),
        assumed(cores, around),
        assumed(200.0, around),
        drives,
    )


def read_node(path: Path) -> Node:
    """Return the node of a YAML or JSON file (docs/plan.md has an example).

    Raises:
        BadInputError: naming field, given and allowed.
    """
    return parse_node(Fields("node", document(path, "node")), str(path))


def parse_node(at: Fields, source: str) -> Node:
    """Return the node that a mapping describes; `like` names a node whose other figures it takes."""
    at.known(("name", "like", "gpu", "gpus", "dram_gib", "dram_gbps", "cpu_cores", "nic_gbit", "drives"))
    base = named_node(at.text("like")) if "like" in at else None
    if "gpu" in at:
        given = at.values["gpu"]
        made = gpu(given, at.path("gpu")) if isinstance(given, str) else parse_gpu(at.inner("gpu"), source)
    elif base:
        made = base.gpu
    else:
        raise BadInputError(at.path("gpu"), None, f"a mapping of its figures, or one of {', '.join(GPUS)}")

    def figure(name: str, low: float, default: Figure | None) -> Figure:
        if name in at or default is None:
            return Figure(at.number(name, low), Basis.GIVEN, source)
        return default

    drives = tuple(one for several in at.each("drives", lambda each: _drives(each, source)) for one in several)
    names = [one.name for one in drives]
    for name in names:
        if names.count(name) > 1:
            raise BadInputError(at.path("drives"), name, "each name once")
    return Node(
        name=at.text("name", default=base.name if base else Path(source).stem),
        gpu=made,
        gpus=at.integer("gpus", 1, 64, default=base.gpus if base else None),
        dram_gib=figure("dram_gib", 1, base.dram_gib if base else None),
        dram_gbps=figure("dram_gbps", 0.1, base.dram_gbps if base else assumed(300.0, "two sockets with DDR5")),
        cpu_cores=figure("cpu_cores", 1, base.cpu_cores if base else None),
        nic_gbit=figure("nic_gbit", 0.01, base.nic_gbit if base else assumed(100.0, "no NIC was given")),
        drives=drives if "drives" in at or base is None else base.drives,
    )


def _drives(at: Fields, source: str) -> tuple[Drive, ...]:
    """Return the drives of one entry: one, or `count` of them with numbered names."""
    at.known(("name", "kind", "count", "read_gbps", "write_gbps", "size_gb", "tbw", "dwpd", "store_gib"))
    count = at.integer("count", 1, 64, default=1)
    name = at.text("name", default="d")
    base = drive(at.text("kind"), name) if "kind" in at else None
    size = at.number("size_gb", 1, default=base.size_gb if base else None)
    tbw = base.tbw if base else None
    if "tbw" in at:
        tbw = Figure(at.number("tbw", 0.001), Basis.GIVEN, source)
    elif "dwpd" in at:
        tbw = Figure(at.number("dwpd", 0.001) * size / 1e3 * _DAYS * _YEARS, Basis.GIVEN, f"{source}, dwpd for 5 years")

    def speed(field: str, old: Figure | None) -> Figure:
        return old if field not in at and old else Figure(at.number(field, 0.001), Basis.GIVEN, source)

    made = Drive(
        name=name,
        read_gbps=speed("read_gbps", base.read_gbps if base else None),
        write_gbps=speed("write_gbps", base.write_gbps if base else None),
        size_gb=size,
        tbw=tbw,
        store_gib=at.integer("store_gib", 1, 65536) if "store_gib" in at else None,
    )
    if count == 1:
        return (made,)
    return tuple(replace(made, name=f"{name}{index}") for index in range(count))
