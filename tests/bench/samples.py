"""Made-up setups, samples and runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kvstrata.bench.rawdisk import RawSample
from kvstrata.bench.results import Run, Sample
from kvstrata.bench.sizes import MIB
from kvstrata.bench.study import Setup, dram_baseline

SETUP = Setup(
    name="base",
    axis="base",
    value_bytes=MIB,
    layout="hash",
    connections=4,
    pipeline=1,
    instances=1,
    allocator="tuned",
    directives={"workers": "8", "rocksdb.compression": "no"},
)
ODD = replace(SETUP, name="layout: <string> & more", axis="layout", layout="string")


def sample(**changes: Any) -> Sample:
    plain = Sample(
        setup="base",
        server="kvrocks",
        repeat=1,
        workload="set",
        requests=100,
        bytes=100 * MIB,
        seconds=1.0,
        capped=False,
        mb_s=100.0,
        rest_mb_s=50.0,
        p50_ms=1.0,
        p95_ms=2.0,
        p99_ms=3.0,
        max_ms=4.0,
        client_cpu_s_per_gib=0.4,
        server_cpu_s_per_gib=1.5,
        foreign_cores=0.1,
        write_amp_server=1.25,
        write_amp_process=1.26,
        write_amp_device=1.3,
        read_amp_server=None,
        read_amp_process=None,
        read_amp_device=None,
    )
    return replace(plain, **changes)


def run() -> Run:
    """Three rounds of a base, a variation and the DRAM baseline, the drive twice as fast in the third."""
    dram = dram_baseline(SETUP)
    made = Run(
        created="2026-01-01T00:00:00+00:00",
        seed=1,
        repeats=3,
        budget={"bytes": 100 * MIB, "seconds": 8.0, "minutes": 19.0},
        host={
            "cpu": "A CPU",
            "cores": 2,
            "memory_bytes": 24 << 30,
            "kernel": "6.18",
            "python": "3.12.1",
            "filesystem": "ext4",
            "device": "/dev/vda",
            "device_model": "unknown",
            "device_counters": True,
            "load_before": 0.1,
        },
        versions={"kvrocks": "kvrocks 2.10.1", "redis": "Redis server v=7.0.15"},
        setups=[SETUP, ODD, dram],
        complete=True,
        duration_s=60.0,
    )
    for repeat, speed in ((1, 1.0), (2, 1.1), (3, 2.0)):
        made.raw.append(RawSample(repeat, "fio-3.33", write_mb_s=200 * speed, read_mb_s=400 * speed))
        for name, factor in (("base", 1.0), (ODD.name, 0.8)):
            rate = 100 * speed * factor
            cold = {"rest_mb_s": None, "write_amp_server": None, "write_amp_process": None, "write_amp_device": None}
            read = {"read_amp_server": 1.0, "read_amp_process": 1.0, "read_amp_device": 1.1}
            made.samples.append(sample(setup=name, repeat=repeat, mb_s=rate, rest_mb_s=rate / 2))
            made.samples.append(sample(setup=name, repeat=repeat, workload="get_cold", mb_s=rate * 3, **cold, **read))
        made.samples.append(sample(setup=dram.name, server="redis", repeat=repeat, mb_s=1000 * speed, rest_mb_s=None))
    return made
