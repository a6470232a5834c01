"""Preflight's question to the plan: is a configured tier slower than computing, by what was measured on this host?

Only measured drives and a readable model are judged, with one load for each replica at once, and kindly: no limit
counts but the drives' own and that of the GPU links. Where something is not known, nothing is judged and the answer
says what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kvstrata.plan.config_json import parse_config
from kvstrata.plan.deployment import Deployment
from kvstrata.plan.engine import Engine
from kvstrata.plan.figures import Basis, Figure, assumed
from kvstrata.plan.gpus import Gpu, seen_as
from kvstrata.plan.inventory import typed
from kvstrata.plan.measured import drives_fact, measured_engine, verify_report
from kvstrata.plan.nodes import Drive, Node
from kvstrata.plan.reading import BadInputError
from kvstrata.plan.tiers import STORE_SHARE, TierName, Verdict, judge, tiers_of
from kvstrata.plan.workload import Workload
from kvstrata.preflight.problem import Problem

GIB = 1 << 30


@dataclass(frozen=True)
class Host:
    """What is known of a host and of what will run there; None is what could not be read."""

    config: Mapping[str, Any] | None
    """The model's config.json."""
    gpus: Sequence[str]
    """Models, as the driver names them."""
    drives_fact: Mapping[str, Any] | None
    """/etc/ansible/facts.d/kvstrata_drives.fact."""
    verify: Mapping[str, Any] | None
    """The last report of kvstrata verify, of the same site."""
    stores: Mapping[str, int]
    """store_gib of each drive of the inventory."""
    memory_bytes: int
    nodes: int
    replicas: int
    tensor_parallel: int
    dram_cache_gib: float
    dtype: str = "auto"
    kv_dtype: str = "auto"
    chunk_tokens: int = 256
    max_model_len: int = 1 << 20
    min_load_gbps: float = 0.0


@dataclass(frozen=True)
class Judged:
    """Tiers that hurt, each as a problem that names a way out; and what kept others from being judged."""

    problems: tuple[Problem, ...] = ()
    unknown: tuple[str, ...] = field(default=())


def host_of(plan: Mapping[str, Any], probe: Mapping[str, Any], fact: Mapping[str, Any] | None) -> Host:
    """Return what preflight knows of a host.

    Args:
        plan: what the inventory says: preflight_plan of playbooks/vars/roles.yml.
        probe: what kvstrata_probe saw, with the text of plan["config"].
        fact: the drives' local fact, or nothing.
    """
    return Host(
        config=_object(probe["texts"].get(plan["config"], "")),
        gpus=probe["gpus"],
        drives_fact=fact or None,
        verify=_of_model(_object(_read(Path(plan["verify"]).expanduser())), str(plan["model"])),
        stores={str(name): int(gib) for name, gib in plan["stores"].items()},
        memory_bytes=int(probe["memory"]),
        nodes=int(plan["nodes"]),
        replicas=int(plan["replicas"]),
        tensor_parallel=int(plan["tensor_parallel"]),
        dram_cache_gib=float(plan["dram_cache_gib"]),
        dtype=str(plan["dtype"]),
        kv_dtype=str(plan["kv_dtype"]),
        chunk_tokens=int(plan["chunk_tokens"]),
        max_model_len=int(plan["max_model_len"]),
        min_load_gbps=float(plan["min_load_gbps"]),
    )


def _of_model(report: Mapping[str, Any] | None, model: str) -> Mapping[str, Any] | None:
    """Return the report if its engines served this model: an earlier one's times say nothing of it."""
    checks = [check for check in (report or {}).get("checks", ()) if check.get("id") == "engine.model"]
    served = [str(check.get("seen", "")).split(" with ")[0] for check in checks]
    return report if served and set(served) == {model} else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _object(text: str) -> Mapping[str, Any] | None:
    try:
        decoded = json.loads(text)
    except ValueError:
        return None
    return decoded if isinstance(decoded, Mapping) else None


def judge_plan(where: str, host: Host) -> Judged:
    """Return whether a tier of a host is slower than computing would be. Whether that refuses is the caller's choice.

    Args:
        where: the host, for the problems.
        host: what is known of it.
    """
    missing = _missing(host)
    if missing:
        return Judged(unknown=tuple(missing))
    try:
        verdict, deployment = _verdict(host)
    except BadInputError as error:
        return Judged(unknown=(f"the plan cannot be made: {error}",))
    if verdict is None or verdict.pays or host.min_load_gbps:
        # With lmcache_min_load_gbps the adapter itself stops loading while that is slower.
        return Judged()
    given = f"{', '.join(host.stores)}: {verdict.gbps:.2f} GB/s together, measured"
    allowed = (
        f"at least {verdict.break_even_gbps:.2f} GB/s for {deployment.shape.name} and {verdict.sharing} loads at once: "
        f"a prompt of {verdict.tokens} tokens takes {verdict.hit_s:.2f} s from the stores and {verdict.miss_s:.2f} s "
        f"computed. Set lmcache_min_load_gbps to {verdict.break_even_gbps / verdict.sharing:.2f}, which stops loading "
        "while that is slower, or leave the drives out; docs/plan.md"
    )
    return Judged((Problem(where, "kvstrata_drives", given, allowed),))


def _missing(host: Host) -> list[str]:
    if not host.stores:
        return ["no drives: there is no SSD tier to judge"]
    missing = []
    if host.config is None:
        missing.append("the model's config.json cannot be read")
    if not host.gpus:
        missing.append("no GPU is seen: how fast prompts are computed is not known")
    elif _gpu(host) is None:
        missing.append(f"no figures for {', '.join(sorted(set(host.gpus)))}: kvstrata/plan/gpus.py knows others")
    try:
        unmeasured = [name for name in host.stores if name not in _reads(host)]
    except BadInputError as error:
        return [*missing, f"the drives' fact cannot be used: {error}"]
    if unmeasured:
        missing.append(f"no baseline of {', '.join(unmeasured)}: the role nvme measures it (docs/drives.md)")
    return missing


def _gpu(host: Host) -> Gpu | None:
    kinds = {seen_as(name) for name in host.gpus}
    return next(iter(kinds)) if len(kinds) == 1 else None


def _reads(host: Host) -> Mapping[str, Figure]:
    return drives_fact(host.drives_fact, "kvstrata_drives.fact").reads if host.drives_fact else {}


def _verdict(host: Host) -> tuple[Verdict | None, Deployment]:
    gpu = _gpu(host)
    assert gpu is not None  # noqa: S101 - _missing looked
    shape = typed(parse_config(host.config or {}, "the model", "config.json of the host"), host.dtype)
    deployment = Deployment(
        shape,
        nodes=host.nodes,
        tensor_parallel=host.tensor_parallel,
        replicas=host.replicas,
        kv_dtype=host.kv_dtype,
        chunk_tokens=host.chunk_tokens,
        dram_cache_gib=host.dram_cache_gib,
    )
    node = _node(host, gpu)
    replicas = deployment.replicas_on(node)
    engine = Engine(gpu, deployment.layout)
    if host.verify is not None:
        engine = measured_engine(engine, replace(verify_report(host.verify, "verify.json"), hit=None))
    tokens = min(Workload().mean_prompt, host.max_model_len)
    total = sum(drive.read_gbps.value for drive in node.drives) * STORE_SHARE
    measured = Figure(total, Basis.MEASURED, "kvstrata_drives.fact")
    tiers = tiers_of(node, deployment, measured)
    ssd = next((tier for tier in tiers if tier.name is TierName.SSD), None)
    if ssd is None:
        return None, deployment
    return judge(engine, ssd, tokens, deployment.chunk_tokens, replicas, replicas), deployment


def _node(host: Host, gpu: Gpu) -> Node:
    reads = _reads(host)
    unknown = assumed(1.0, "not judged")
    drives = tuple(
        Drive(name, reads[name], unknown, size_gb=2.0 * gib, tbw=None, store_gib=gib)
        for name, gib in host.stores.items()
    )
    # What the host's fact does not tell must not be the limit: DRAM, processors, network.
    plenty = assumed(1e6, "not judged")
    return Node(
        "host",
        gpu,
        len(host.gpus),
        Figure(host.memory_bytes / GIB, Basis.MEASURED, "the host's MemTotal"),
        plenty,
        plenty,
        plenty,
        drives,
    )
