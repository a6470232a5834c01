"""What sends a workload to an endpoint: our own generator, and other programs (docs/workloads.md)."""

from __future__ import annotations

from pathlib import Path

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.drivers import aiperf, own, vllm
from kvstrata.bench.serving.model import Driver

__all__ = ["DEFAULT", "NAMES", "create"]

DEFAULT = own.NAME
NAMES = (own.NAME, aiperf.NAME, vllm.NAME)


def create(
    name: str = DEFAULT, *, model: Path | None = None, aiperf_path: Path | None = None, vllm_path: Path | None = None
) -> Driver:
    """Return a driver.

    Args:
        name: one of NAMES.
        model: the folder with the served model's tokenizer; the other programs want it.
        aiperf_path: AIPerf's program; None: the one on PATH.
        vllm_path: vLLM's program; None: the one on PATH.

    Raises:
        BenchError: an unknown name, or a program or folder that it needs is missing.
    """
    if name not in NAMES:
        raise BenchError(f"--driver: given {name!r}; allowed: {', '.join(NAMES)}")
    if name == own.NAME:
        return own.OwnDriver()
    if model is None:
        raise BenchError(f"--driver {name}: it needs the folder of the served model, for its tokenizer")
    if name == aiperf.NAME:
        return aiperf.AIPerfDriver(aiperf.find(aiperf_path), model)
    return vllm.VllmDriver(vllm.find(vllm_path), model)
