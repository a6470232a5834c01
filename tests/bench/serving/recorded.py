"""A run of bench serve whose every figure can be worked out by hand."""

from __future__ import annotations

from kvstrata.bench.serving.correctness import Verdict
from kvstrata.bench.serving.model import Counters, Phase, RequestSample, TierTokens
from kvstrata.bench.serving.record import Failure, NotRun, Record, Start


def sample(number: int, ttft: float, gap: float = 0.01, tokens: int = 11, error: str | None = None) -> RequestSample:
    """A request of 100 prompt tokens whose gaps are all the same."""
    gaps = () if error else (gap,) * (tokens - 1)
    return RequestSample(
        conversation=f"c{number}",
        turn=0,
        scheduled_s=float(number),
        started_s=float(number),
        ttft_s=None if error else ttft,
        itl_s=gaps,
        e2e_s=ttft + sum(gaps),
        prompt_tokens=100,
        output_tokens=0 if error else tokens,
        error=error,
    )


def counters(scale: float) -> Counters:
    """What was counted when `scale` times a hundred chunks were loaded from the stores, and as many from DRAM."""
    stages = {"control": 0.1, "wait": 0.2, "server": 0.4, "copy": 0.2, "checksum": 0.1}
    moved = "lmcache_mp_transfer_phase_elapsed_seconds_total"
    return {
        "l2": {f"latency_seconds_sum{{endpoint=a:1,stage={name}}}": scale * each for name, each in stages.items()},
        "lmcache": {
            "lmcache_mp_l2_prefetch_load_completed_chunks_total": scale * 100,
            f"{moved}{{device_index=0,direction=h2d,phase=staging}}": scale * 0.2,
            f"{moved}{{device_index=0,direction=d2h,phase=staging}}": scale * 9.0,
        },
    }


def phase(configuration: str, turn: int, seconds: float, l2: bool = False) -> Phase:
    """Four requests of 11 tokens each in `seconds`; one that loads has a fifth of its tokens from each tier."""
    return Phase(
        configuration=configuration,
        round=turn,
        workload="poc",
        pass_="cold",
        started_at="2026-11-27T09:00:00+00:00",
        duration_s=seconds,
        samples=tuple(sample(number, 0.1 * (number + 1) * seconds) for number in range(4)),
        before=counters(1) if l2 else {},
        after=counters(2) if l2 else {},
        tiers=TierTokens(80, 25600, 25600, 240) if l2 else TierTokens(100, 0, 0, 300),
    )


def record() -> Record:
    """`none` and `dram+ssd` in three rounds: everything takes 4, 8 and 4 s, and half of that with the tiers."""
    chunk = {"chunk_tokens": 256}
    made = Record(
        created="2026-11-27T09:00:00+00:00",
        plan={
            "rounds": 3,
            "seed": 1,
            "configurations": [
                {"name": "none", "cache": "none", **chunk},
                {"name": "dram+ssd", "cache": "lmcache", **chunk},
                {"name": "dram+ssd chunk_size=64", "cache": "lmcache", "chunk_tokens": 64},
            ],
        },
        host={"cpu": "A CPU", "cores": 16, "kernel": "6.1"},
        stack={"gpus": 2, "gpu_names": ["H100", "H100"], "model": {"name": "m"}, "versions": {"vllm": "0.31.0"}},
        complete=True,
        duration_s=60.0,
    )
    for turn, seconds in ((1, 4.0), (2, 8.0), (3, 4.0)):
        made.phases.append(phase("none", turn, seconds))
        made.phases.append(phase("dram+ssd", turn, seconds / 2, l2=True))
        made.phases.append(phase("dram+ssd chunk_size=64", turn, seconds))
    made.starts.append(Start("none", 1, 33.0, {}))
    made.not_run.append(NotRun("poc", "needs a GPU"))
    made.failures.append(Failure("resp", 2, "it hung"))
    made.verdicts.append(Verdict("dram+ssd", 8, 512, (("c1", 3),), 0.5, 0, 0.0, True))
    made.note("NOT AN SSD TIER: x")
    return made
