"""The memory budget of a host: what stores, DRAM tier and engines take together, against what there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvstrata.kvrocks.config import directives
from kvstrata.kvrocks.memory import kvrocks_mib, redis_mib
from kvstrata.preflight.problem import Problem

# The server beside its pinned memory, and the operating system with its own services.
_LMCACHE_GIB = 1.0
_SYSTEM_GIB = 1.0
_PER_GIB = 1024


@dataclass(frozen=True)
class Share:
    """What one kind of process takes."""

    who: str
    count: int
    each_gib: float
    set_by: str
    """The variable that makes it smaller."""

    @property
    def gib(self) -> float:
        """All of them together."""
        return self.count * self.each_gib


def engine_gib(accelerator: str, tensor_parallel: int, cpu_kv_gib: float) -> float:
    """Return the host memory that a replica is expected to take where the site does not say: a judgement, no measure.

    On CPU it holds the KV cache and the weights of the lab's small model; with GPUs each rank is a process.
    """
    return 3.0 + cpu_kv_gib if accelerator == "cpu" else 8.0 * tensor_parallel


def shares(wanted: Mapping[str, Any]) -> list[Share]:
    """Return who takes how much of a host.

    Args:
        wanted: engine, stores (how many), profile, workers, config, redis_maxmemory_mib, dram_cache_gib, replicas,
            engine_memory_gib (or None), accelerator, tensor_parallel and cpu_kv_gib, from playbooks/vars/roles.yml.
    """
    if wanted["engine"] == "redis":
        store, by = redis_mib(int(wanted["redis_maxmemory_mib"])), "kvrocks_redis_maxmemory_mib"
    else:
        config = directives(wanted["profile"], wanted["workers"], wanted["config"])
        store, by = kvrocks_mib(config), "kvrocks_profile, kvrocks_config"
    each = wanted["engine_memory_gib"]
    if each is None:
        each = engine_gib(wanted["accelerator"], int(wanted["tensor_parallel"]), float(wanted["cpu_kv_gib"]))
    return [
        Share(f"{wanted['engine']} stores", int(wanted["stores"]), store / _PER_GIB, by),
        Share("LMCache's L1", 1, float(wanted["dram_cache_gib"]), "kvstrata_dram_cache_gib"),
        Share("LMCache beside it", 1, _LMCACHE_GIB, "-"),
        Share("engines", int(wanted["replicas"]), float(each), "kvstrata_replicas, kvstrata_engine_memory_gib"),
        Share("the system", 1, _SYSTEM_GIB, "-"),
    ]


def judge_memory(where: str, wanted: Mapping[str, Any], total_bytes: int) -> list[Problem]:
    """Return a problem with a table of who takes what if a host has less memory than that."""
    there = total_bytes / (1 << 30)
    taken = shares(wanted)
    needed = sum(share.gib for share in taken)
    if needed <= there:
        return []
    allowed = f"at most {there:.1f} GiB, all that the host has. Who takes what:\n{table(taken)}"
    return [Problem(where, "memory budget", f"{needed:.1f} GiB", allowed)]


def table(taken: Sequence[Share]) -> str:
    """Return the shares as lines of text, the sum last."""
    rows = [("who", "count", "each GiB", "GiB", "set by")]
    rows += [(each.who, str(each.count), f"{each.each_gib:.1f}", f"{each.gib:.1f}", each.set_by) for each in taken]
    rows.append(("together", "", "", f"{sum(each.gib for each in taken):.1f}", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join("      " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
