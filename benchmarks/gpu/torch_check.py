"""Does torch start, with which libraries, and does it compute? Prints JSON; exit 1 where anything is wrong."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBRARIES = ("libnccl", "libcublas.so", "libcudnn.so", "libcudart", "libcusparseLt", "libnvshmem_host", "libcusolver")


def loaded(word: str) -> list[str]:
    """Return the files of this process whose names have `word`."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sorted({line.split()[-1] for line in lines if word in line})


def compute(torch: Any, device: str) -> dict[str, Callable[[], float]]:
    """Return what is tried, by name; each returns a number that is about 1."""

    def matmul() -> float:
        a = torch.ones(1024, 1024, device=device, dtype=torch.bfloat16)
        return float((a @ a).float().mean()) / 1024

    def attention() -> float:
        parts = [torch.ones(1, 8, 256, 128, device=device, dtype=torch.bfloat16)] * 3
        return float(torch.nn.functional.scaled_dot_product_attention(*parts).float().mean())

    def solve() -> float:
        return float(
            torch.linalg.solve(torch.eye(64, device=device) * 2, torch.full((64, 1), 2.0, device=device)).mean()
        )

    def reduce() -> float:
        import torch.distributed as dist

        backend = "nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, init_method="tcp://127.0.0.1:29511", rank=0, world_size=1)
        one = torch.ones(1 << 20, device=device)
        dist.all_reduce(one)
        dist.destroy_process_group()
        return float(one.mean())

    return {"matmul": matmul, "attention": attention, "solve": solve, "all_reduce": reduce}


def main() -> int:
    """Print what was seen."""
    found: dict[str, Any] = {"ok": False}
    try:
        began = time.monotonic()
        import torch

        found |= {"import_s": round(time.monotonic() - began, 1), "torch": torch.__version__, "file": torch.__file__}
        device = "cuda" if torch.cuda.is_available() else "cpu"
        found |= {"device": torch.cuda.get_device_name(0) if device == "cuda" else "cpu", "cuda": torch.version.cuda}
        if device == "cuda":
            found["nccl"] = torch.cuda.nccl.version()
        for name, attempt in compute(torch, device).items():
            began = time.monotonic()
            found[name] = attempt()
            found[f"{name}_s"] = round(time.monotonic() - began, 2)
            if abs(found[name] - 1) > 0.01:
                raise AssertionError(f"{name} is {found[name]}, about 1 is right")
        found |= {"libraries": {word: loaded(word) for word in LIBRARIES}, "ok": True}
    except Exception:
        found |= {"error": traceback.format_exc()[-3000:], "libraries": {word: loaded(word) for word in LIBRARIES}}
    print(json.dumps(found, indent=1))
    return 0 if found["ok"] else 1


sys.exit(main())
