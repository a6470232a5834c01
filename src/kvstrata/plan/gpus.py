"""GPUs by name, from their makers' data sheets.

TFLOPS are dense (data sheets print twice as much "with sparsity"). `hbm_gib` is what the data sheet calls GB:
nvidia-smi shows about as many GiB (an H100 80GB 79.6, an H200 141GB 140.4). Links are one direction of PCIe x16 after
128b/130b encoding, 31.5 GB/s for Gen4 and 63 GB/s for Gen5 (PCI-SIG), or one direction of NVLink-C2C.

| name | source |
|---|---|
| A100-80G | NVIDIA A100 80GB data sheet (SXM): 312 TFLOPS BF16, 624 TOPS INT8, 2,039 GB/s, PCIe Gen4 |
| H100-SXM | NVIDIA H100 data sheet: 1,979 / 3,958 TFLOPS BF16 / FP8 with sparsity, 3.35 TB/s, PCIe Gen5 |
| H200 | NVIDIA H200 data sheet: as H100, 141 GB, 4.8 TB/s |
| L40S | NVIDIA L40S data sheet: 362.05 / 733 TFLOPS BF16 / FP8 dense, 48 GB, 864 GB/s, PCIe Gen4 |
| B200 | NVIDIA HGX B200 (8 GPUs: 36 / 72 PFLOPS BF16 / FP8 with sparsity, 1.4 TB, 8 TB/s each), PCIe Gen5 |
| GH200 | NVIDIA GH200 data sheet: as H100, 96 GB HBM3, 4 TB/s, NVLink-C2C 900 GB/s in both directions |
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kvstrata.plan.figures import Basis, Figure
from kvstrata.plan.reading import BadInputError, Fields

_GEN4, _GEN5 = 31.5, 63.0
_LIMIT = {"tflops": 1e5, "gb": 1e6}


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    name: str
    tflops: dict[str, Figure] = field(hash=False)
    """10^12 dense FLOPs a second by type: bf16 and where there is more fp8, fp32."""
    hbm_gib: Figure
    hbm_gbps: Figure
    """10^9 bytes a second."""
    link_gbps: Figure
    """To host memory, one direction, 10^9 bytes a second, as the link is sold."""

    def peak(self, kind: str) -> Figure:
        """Return the TFLOPS of a type; where the GPU has no faster units for it, those of bf16."""
        return self.tflops.get(kind, self.tflops["bf16"])


def _sheet(name: str, bf16: float, fp8: float | None, hbm_gib: float, hbm_gbps: float, link: float) -> Gpu:
    source = f"data sheet of {name} (kvstrata/plan/gpus.py)"

    def figure(value: float) -> Figure:
        return Figure(value, Basis.DATA_SHEET, source)

    tflops = {"bf16": figure(bf16)} | ({"fp8": figure(fp8)} if fp8 else {})
    return Gpu(name, tflops, figure(hbm_gib), figure(hbm_gbps), figure(link))


_SHEETS = (
    _sheet("A100-80G", 312.0, None, 80, 2039, _GEN4),
    _sheet("H100-SXM", 989.4, 1978.9, 80, 3350, _GEN5),
    _sheet("H200", 989.4, 1978.9, 141, 4800, _GEN5),
    _sheet("L40S", 362.05, 733.0, 48, 864, _GEN4),
    _sheet("B200", 2250.0, 4500.0, 180, 8000, _GEN5),
    _sheet("GH200", 989.4, 1978.9, 96, 4000, 450),
)

GPUS = tuple(gpu.name for gpu in _SHEETS)
"""The names of the GPUs that are known."""

# What `nvidia-smi --query-gpu=name` calls them.
_SEEN = {
    "A100-80G": ("A100", "80GB"),
    "H100-SXM": ("H100 80GB HBM3",),
    "H200": ("H200",),
    "L40S": ("L40S",),
    "B200": ("B200",),
    "GH200": ("GH200",),
}


def gpu(name: str, field_name: str = "gpu") -> Gpu:
    """Return a GPU by its name here; case does not matter.

    Raises:
        BadInputError: naming those that are known.
    """
    for sheet in _SHEETS:
        if sheet.name.lower() == name.lower():
            return sheet
    raise BadInputError(field_name, name, f"a mapping of its figures, or one of {', '.join(GPUS)}")


def seen_as(name: str) -> Gpu | None:
    """Return the GPU that the driver calls `name` ("NVIDIA H100 80GB HBM3"), or None."""
    # GH200 holds H200 in its name: the longest name decides.
    fits = [known for known, parts in _SEEN.items() if all(part in name for part in parts)]
    return gpu(max(fits, key=len)) if fits else None


def parse_gpu(at: Fields, source: str) -> Gpu:
    """Return the GPU that a mapping describes; with `like`, that one with what the mapping changes."""
    at.known(("name", "like", "tflops", "hbm_gib", "hbm_gbps", "link_gbps"))
    base = gpu(at.text("like"), at.path("like")) if "like" in at else None

    def figure(name: str, old: Figure | None) -> Figure:
        if name not in at and old is not None:
            return old
        return Figure(at.number(name, 0.001, _LIMIT["gb"]), Basis.GIVEN, source)

    tflops = dict(base.tflops) if base else {}
    if "tflops" in at or base is None:
        inner = at.inner("tflops")
        inner.known(("bf16", "fp8", "fp32"))
        given = [name for name in ("bf16", "fp8", "fp32") if name in inner]
        tflops |= {name: Figure(inner.number(name, 0.0001, _LIMIT["tflops"]), Basis.GIVEN, source) for name in given}
        if "bf16" not in tflops:
            raise BadInputError(inner.path("bf16"), None, "a number; it is required")
    return Gpu(
        name=at.text("name", default=base.name if base else "given"),
        tflops=tflops,
        hbm_gib=figure("hbm_gib", base.hbm_gib if base else None),
        hbm_gbps=figure("hbm_gbps", base.hbm_gbps if base else None),
        link_gbps=figure("link_gbps", base.link_gbps if base else None),
    )
