"""Where the time of a cached chunk goes, tier by tier, from the counters before and after a phase. Pure.

| tier | stage | counted by |
|---|---|---|
| ssd | lookup | kvstrata.l2, stage `control`: manifests asked of the stores |
| | queue | kvstrata.l2, stage `wait`: a piece waits for a connection |
| | server | kvstrata.l2, stage `server`: from the request to the first byte (store, drive, network) |
| | copy | kvstrata.l2, stage `copy`: the rest of the bytes, straight into LMCache's memory |
| | checksum | kvstrata.l2, stage `checksum` |
| ssd, dram | H2D | LMCache, `transfer_phase_elapsed` of `staging` from host to device; not counted on CPU |
| dram | gather | LMCache, the same of `kernel`: mostly the wait for a GPU that is busy with the engine |

Times are sums over the pieces of a chunk. Pieces travel over several connections at once, so a chunk takes less time
than its stages have together: the plot shows where work is, not how long a request waits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from kvstrata.bench.serving.counters import difference
from kvstrata.bench.serving.model import Counters, Phase

SSD, DRAM = "ssd", "dram"
STAGES = ("lookup", "queue", "server", "copy", "checksum", "gather", "H2D")
# What turns bytes of the wire into KV in memory: kvstrata.l2 has no other serialization.
SERIALIZATION = ("copy", "checksum")
_OF_L2 = {"lookup": "control", "queue": "wait", "server": "server", "copy": "copy", "checksum": "checksum"}
_OF_LMCACHE = {"gather": "kernel", "H2D": "staging"}
_LABEL = re.compile(r"(\w+)=([^,}]*)")


@dataclass(frozen=True)
class Profile:
    """One tier under one configuration: seconds per chunk and stage, the median of the phases that loaded from it."""

    configuration: str
    tier: str
    chunks: int
    seconds: Mapping[str, float]

    @property
    def total_s(self) -> float:
        """All stages together."""
        return sum(self.seconds.values())

    @property
    def serialization_share(self) -> float | None:
        """The share of SERIALIZATION; None where no such stage was counted."""
        if not any(stage in self.seconds for stage in SERIALIZATION) or not self.total_s:
            return None
        return sum(self.seconds.get(stage, 0.0) for stage in SERIALIZATION) / self.total_s


def profiles(phases: Sequence[Phase], chunk_tokens: Mapping[str, int]) -> list[Profile]:
    """Return a profile for each configuration and tier that chunks were loaded from.

    Args:
        phases: all of a run.
        chunk_tokens: tokens of a chunk, by configuration; a configuration without LMCache is not there.
    """
    found: dict[tuple[str, str], list[tuple[int, dict[str, float]]]] = {}
    for phase in phases:
        for tier, chunks, seconds in _of(phase, chunk_tokens.get(phase.configuration, 0)):
            found.setdefault((phase.configuration, tier), []).append((chunks, seconds))
    made = []
    for (name, tier), rounds in found.items():
        stages = [stage for stage in STAGES if any(stage in seconds for _, seconds in rounds)]
        per_chunk = {
            stage: median(seconds.get(stage, 0.0) / chunks for chunks, seconds in rounds if chunks) for stage in stages
        }
        made.append(Profile(name, tier, sum(chunks for chunks, _ in rounds), per_chunk))
    return made


def _of(phase: Phase, chunk_tokens: int) -> Iterator[tuple[str, int, dict[str, float]]]:
    before, after = phase.before, phase.after
    if not chunk_tokens or phase.tiers is None:
        return
    device = {name: _device(before, after, of) for name, of in _OF_LMCACHE.items()}
    there = {name: seconds for name, seconds in device.items() if seconds > 0}
    loaded = round(difference(before, after, "lmcache", "lmcache_mp_l2_prefetch_load_completed_chunks_total"))
    held = round((phase.tiers.l1 or 0) / chunk_tokens)
    everything = loaded + held
    if loaded and "l2" in after:
        stages = {name: _stage(before, after, of) for name, of in _OF_L2.items()}
        yield SSD, loaded, stages | {name: seconds * loaded / everything for name, seconds in there.items()}
    if held and there:
        yield DRAM, held, {name: seconds * held / everything for name, seconds in there.items()}


def _stage(before: Counters, after: Counters, stage: str) -> float:
    """Seconds of one stage of kvstrata.l2, over all stores."""
    return _labelled(before, after, "l2", "latency_seconds_sum", {"stage": stage})


def _device(before: Counters, after: Counters, phase: str) -> float:
    """Seconds of one phase of LMCache's transfers to devices, over all of them."""
    wanted = {"phase": phase, "direction": "h2d"}
    return _labelled(before, after, "lmcache", "lmcache_mp_transfer_phase_elapsed_seconds_total", wanted)


def _labelled(before: Counters, after: Counters, source: str, name: str, wanted: Mapping[str, str]) -> float:
    def total(values: Mapping[str, float]) -> float:
        return sum(
            value
            for key, value in values.items()
            if key.startswith(f"{name}{{") and wanted.items() <= dict(_LABEL.findall(key)).items()
        )

    return total(after.get(source, {})) - total(before.get(source, {}))
