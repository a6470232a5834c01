"""Files to make a page of: a run of bench serve on a GPU, one of bench l2, and something else."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from kvstrata.bench import l2_results
from kvstrata.bench.serving.correctness import Verdict
from kvstrata.bench.serving.record import Record, to_json
from tests.bench.test_bench_l2 import a_run, sample
from tests.plan import benched_run


def record(slower: dict[str, float] | None = None) -> Record:
    """Runs on an H100 that took the same, but for `slower` by configuration; with what break-even counted.

    Ratios are so those of `slower`, whatever the simulation says.
    """
    made = benched_run.record()
    made.phases = [
        benched_run.phase(name, pass_, benched_run.predicted("none", passes), (slower or {}).get(name, 1.0))
        for passes, pass_ in ((1, "cold"), (2, "warm"))
        for name in benched_run.NAMES
    ]
    made.complete, made.duration_s = True, 600.0
    made.plan |= {"rounds": 1, "seed": 7}
    workloads: Any = made.plan["workloads"]
    workloads[0] |= {"active": 20, "conversations": 40, "requests": 160, "working_set": {"live": 60000}}
    made.host = {"cpu": "A CPU", "cores": 16, "kernel": "6.8", "memory_bytes": 128 << 30, "device": "/dev/x"}
    made.stack |= {"versions": {"vllm": "0.31.0", "lmcache": "0.5.6"}}
    made.stack["model"] = {
        "name": "llama-8b-shape",
        "dtype": "bfloat16",
        "kv_dtype": "auto",
        "load_format": "dummy",
        "revision": "abc",
        "tensor_parallel": 1,
    }
    made.phases = [
        replace(phase, after={"l2": {**phase.after["l2"], **CUT}}) if "l2" in phase.after else phase
        for phase in made.phases
    ]
    made.verdicts = [Verdict("dram+ssd", 8, 4096, (), 1e-3, 0, 0.0, exact=False)]
    return made


def holding(record: Record, configuration: str, tokens: int, policy: str = "cache_aware") -> Record:
    """Let each of two replicas of a configuration have room for `tokens` in HBM."""
    room = {f"vllm:{number}": {"kv_capacity_tokens": float(tokens)} for number in range(2)}
    record.stack |= {"replicas": 2, "router_policy": policy}
    record.phases = [
        replace(each, after={**each.after, **room}) if each.configuration == configuration else each
        for each in record.phases
    ]
    return record


CUT = {
    "events_total{event=lookup_hits}": 75.0,
    "break_even_cut_chunks_total": 25.0,
    "break_even_cut_bytes_total": 25.0 * (32 << 20),
    "break_even_probes_total": 3.0,
    "break_even_unasked_total": 40.0,
    "events_total{event=lookup_late}": 2.0,
    "break_even": 1.0,
}


def results(folder: Path, runs: dict[str, Record]) -> list[Path]:
    """Write runs of bench serve (packed), a run of bench l2, and a file of a kind that no section is for."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, run in runs.items():
        (folder / f"{stem}.json.gz").write_bytes(gzip.compress(json.dumps(to_json(run)).encode()))
    raw = a_run([sample("kvstrata tcp", 1, "cold", 950.0, (1.0, 1.5))])
    (folder / "gpu-raw.json").write_text(json.dumps(l2_results.to_json(raw)))
    (folder / "gpu-units.json").write_text(json.dumps({"schema": "someone/1", "created": "2026-11-28"}))
    (folder / "other.json").write_text("{}")
    return sorted(folder.glob("gpu-*"))
