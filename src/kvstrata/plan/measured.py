"""Measured baselines in place of data sheets: the drives' local fact, a verify report, or figures of one's own.

| file | known by | gives |
|---|---|---|
| /etc/ansible/facts.d/kvstrata_drives.fact | `drives` with `baseline` (docs/drives.md) | reads of each drive, 1 MiB |
| kvstrata verify --json | `checks` and `tiers` (docs/verify.md) | MFU from the cold TTFT, SSD rate from a hit |
| one's own | `schema: kvstrata.plan.measured/1` | `mfu`, `mbu`, `link_gbps`, `ssd_gbps`, drives' rates |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kvstrata.plan.engine import Engine
from kvstrata.plan.figures import Basis, Figure
from kvstrata.plan.nodes import Drive, Node
from kvstrata.plan.reading import BadInputError, Fields, read_json
from kvstrata.plan.tiers import DRAM_LOOKUP_S, store_lookup_s

SCHEMA = "kvstrata.plan.measured/1"
_FACT_SCHEMA = 1
# What is read here is the same in both.
_VERIFY_SCHEMAS = (1, 2)
_STORES = ("other node", "after restart")


@dataclass(frozen=True)
class Hit:
    """A prompt of which the stores had a part, and how long its first token took."""

    prompt_tokens: int
    stored_tokens: int
    ttft_s: float
    source: str


@dataclass(frozen=True)
class Measured:
    """What was measured; None and empty is what was not."""

    mfu: Figure | None = None
    mbu: Figure | None = None
    link_gbps: Figure | None = None
    ssd_gbps: Figure | None = None
    """10^9 bytes/s from the drives into LMCache, on one node."""
    cold: Hit | None = None
    hit: Hit | None = None
    reads: Mapping[str, Figure] = field(default_factory=dict)
    writes: Mapping[str, Figure] = field(default_factory=dict)
    unwritten: frozenset[str] = frozenset()
    """Drives that were read where nothing was written: they answer faster than they read."""

    def over(self, other: Measured) -> Measured:
        """Return both; where both know something, this one counts."""
        mine = {name: getattr(self, name) or getattr(other, name) for name in ("mfu", "mbu", "link_gbps", "ssd_gbps")}
        return Measured(
            **mine,
            cold=self.cold or other.cold,
            hit=self.hit or other.hit,
            reads={**other.reads, **self.reads},
            writes={**other.writes, **self.writes},
            unwritten=self.unwritten | (other.unwritten - set(self.reads)),
        )


def read_measured(path: Path) -> Measured:
    """Return what a file of one of the three forms says.

    Raises:
        BadInputError: when it is none of them.
    """
    values = read_json(path, "measured")
    if values.get("schema") == SCHEMA:
        return _own(Fields("measured", values), str(path))
    if "checks" in values and "tiers" in values:
        return verify_report(values, str(path))
    if "drives" in values:
        return drives_fact(values, str(path))
    raise BadInputError("measured", str(path), f"a drives' fact, a verify report, or a file with schema {SCHEMA}")


def drives_fact(values: Mapping[str, Any], source: str) -> Measured:
    """Return what the fact of the nvme role says of a node's drives."""
    at = Fields("measured", values)
    if values.get("schema") != _FACT_SCHEMA:
        raise BadInputError("measured.schema", values.get("schema"), f"{_FACT_SCHEMA}")
    reads, unwritten = {}, set()
    for name in at.inner("drives").values:
        drive = at.inner("drives").inner(name)
        if "baseline" not in drive:
            continue
        baseline = drive.inner("baseline")
        written = baseline.flag("on_written_data")
        note = "" if written else ", of blocks that were never written"
        rate = baseline.inner("seq_1m").number("mb_per_s", 0.001) / 1e3
        reads[name] = Figure(rate, Basis.MEASURED, f"{source}, {baseline.text('date', default='undated')}{note}")
        if not written:
            unwritten.add(name)
    return Measured(reads=reads, unwritten=frozenset(unwritten))


def verify_report(values: Mapping[str, Any], source: str) -> Measured:
    """Return what a verification timed: a cold prompt, and one that came from the stores."""
    if values.get("schema") not in _VERIFY_SCHEMAS:
        raise BadInputError("measured.schema", values.get("schema"), " or ".join(map(str, _VERIFY_SCHEMAS)))
    tiers = values["tiers"]
    steps = {step.get("name"): step for step in (tiers.get("steps") or ())} if isinstance(tiers, Mapping) else {}

    def hit(name: str) -> Hit | None:
        if name not in steps:
            return None
        at = Fields(f"measured.tiers.steps[{name}]", steps[name])
        return Hit(
            at.integer("prompt_tokens", 1),
            at.integer("l2_tokens", 0, default=0),
            at.number("ttft_s", 1e-6),
            f"{source}, {name}",
        )

    return Measured(cold=hit("cold"), hit=next((found for name in _STORES if (found := hit(name))), None))


def _own(at: Fields, source: str) -> Measured:
    at.known(("schema", "mfu", "mbu", "link_gbps", "ssd_gbps", "drives"))

    def figure(fields: Fields, name: str, high: float) -> Figure | None:
        return Figure(fields.number(name, 1e-4, high), Basis.MEASURED, source) if name in fields else None

    reads: dict[str, Figure] = {}
    writes: dict[str, Figure] = {}
    for name in at.inner("drives").values if "drives" in at else ():
        drive = at.inner("drives").inner(name)
        drive.known(("read_gbps", "write_gbps"))
        for rates, key in ((reads, "read_gbps"), (writes, "write_gbps")):
            if rate := figure(drive, key, 1e4):
                rates[name] = rate
    return Measured(
        mfu=figure(at, "mfu", 1.0),
        mbu=figure(at, "mbu", 1.0),
        link_gbps=figure(at, "link_gbps", 1e4),
        ssd_gbps=figure(at, "ssd_gbps", 1e4),
        reads=reads,
        writes=writes,
    )


def measured_node(node: Node, measured: Measured) -> Node:
    """Return the node with its drives and links as measured.

    Raises:
        BadInputError: for a measured drive that the node does not have.
    """
    names = [drive.name for drive in node.drives]
    for name in (*measured.reads, *measured.writes):
        if name not in names:
            raise BadInputError("measured.drives", name, f"drives of the node: {', '.join(names) or 'none'}")
    gpu = replace(node.gpu, link_gbps=measured.link_gbps) if measured.link_gbps else node.gpu
    return replace(node, gpu=gpu, drives=tuple(_drive(drive, measured) for drive in node.drives))


def _drive(drive: Drive, measured: Measured) -> Drive:
    read = measured.reads.get(drive.name, drive.read_gbps)
    if drive.name in measured.unwritten and read.value > drive.read_gbps.value:
        read = drive.read_gbps
    return replace(drive, read_gbps=read, write_gbps=measured.writes.get(drive.name, drive.write_gbps))


def measured_engine(engine: Engine, measured: Measured) -> Engine:
    """Return the engine with the MFU and MBU that were measured; a cold prompt's TTFT gives the MFU."""
    if measured.mbu:
        engine = replace(engine, mbu=measured.mbu)
    if measured.mfu:
        return replace(engine, mfu=measured.mfu)
    if measured.cold is None:
        return engine
    cold = measured.cold
    return replace(engine, mfu=fitted_mfu(engine, cold.prompt_tokens, cold.ttft_s, cold.source))


def fitted_mfu(engine: Engine, tokens: int, ttft_s: float, source: str) -> Figure:
    """Return the MFU at which the prediction of a cold prompt is its measured time, by halving.

    Args:
        engine: what computed it; its own MFU does not matter.
        tokens: of the prompt.
        ttft_s: seconds until its first token, alone.
        source: who measured it.

    Raises:
        BadInputError: the GPU could not do it so quickly at its peak.
    """
    low, high = 1e-6, 1.0
    if _with_mfu(engine, high).prefill_s(tokens) > ttft_s:
        raise BadInputError("measured cold TTFT", ttft_s, "more than the GPU needs at its peak: is it this GPU?")
    for _ in range(60):
        middle = (low * high) ** 0.5
        if _with_mfu(engine, middle).prefill_s(tokens) > ttft_s:
            low = middle
        else:
            high = middle
    return Figure(high, Basis.MEASURED, f"{source}: {tokens} tokens in {ttft_s:.3g} s")


def _with_mfu(engine: Engine, mfu: float) -> Engine:
    return replace(engine, mfu=Figure(mfu, Basis.MEASURED, ""))


def measured_ssd(engine: Engine, measured: Measured, chunk_tokens: int) -> Figure | None:
    """Return the rate of the SSD tier on one node: as given, or by a hit of one prompt, which is the least it can be.

    Of its TTFT what is computed and looked up is taken off; the rest is the load. None where nothing was measured.
    """
    hit = measured.hit
    if measured.ssd_gbps or hit is None or not hit.stored_tokens:
        return measured.ssd_gbps
    rest = engine.prefill_s(hit.prompt_tokens, hit.stored_tokens)
    loading = hit.ttft_s - rest - DRAM_LOOKUP_S.value - store_lookup_s(hit.stored_tokens // chunk_tokens)
    if loading <= 0:
        return None
    rate = hit.stored_tokens * engine.kv.stored_bytes_per_token / loading / 1e9
    return Figure(rate, Basis.MEASURED, f"{hit.source}: {hit.stored_tokens} tokens, one prompt alone")
