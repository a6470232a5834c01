"""What is only true for a moment, sampled while a load runs: GPUs by nvidia-smi, and how full an engine's KV is."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO

# The fields of `nvidia-smi --query-gpu`, and what they are called here.
_FIELDS = {
    "index": "",
    "utilization.gpu": "utilisation_percent",
    "power.draw": "power_w",
    "memory.used": "memory_used_mib",
    "clocks.sm": "sm_clock_mhz",
    "temperature.gpu": "temperature_c",
}
_PERIOD_S = 1.0
GPU_QUERY = (f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits")


class GpuSampler:
    """Runs `nvidia-smi` once a second from `start` to `stop`; without one nothing happens."""

    def __init__(self, program: str | None = None, gpus: Sequence[int] = ()) -> None:
        """Sample with that program (default: nvidia-smi on PATH) those GPUs, by their numbers; default: all."""
        self._program = shutil.which("nvidia-smi") if program is None else program
        self._only = [f"--id={','.join(map(str, gpus))}"] if gpus else []
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._lines: list[str] = []

    def start(self) -> None:
        """Begin."""
        self._lines = []
        if not self._program:
            return
        words = [self._program, *self._only, *GPU_QUERY, f"-lms={_PERIOD_S * 1000:.0f}"]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        if self._process.stdout is not None:
            self._thread = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
            self._thread.start()

    def stop(self) -> dict[str, dict[str, float]]:
        """End; return for each `gpu:N` mean and maximum of what was seen, and the energy in J since `start`."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        if self._thread is not None:
            self._thread.join()
        self._process = self._thread = None
        return summarize(self._lines)

    def _read(self, stream: IO[str]) -> None:
        with stream:
            self._lines += list(stream)


def summarize(lines: list[str], period_s: float = _PERIOD_S) -> dict[str, dict[str, float]]:
    """Return what the lines of nvidia-smi come to, for each GPU; what is not a number (`[N/A]`) is left out.

    period_s: seconds between two lines of a GPU.
    """
    seen: dict[str, dict[str, list[float]]] = {}
    for line in lines:
        index, *values = [field.strip() for field in line.split(",")]
        if len(values) != len(_FIELDS) - 1:
            continue
        gpu = seen.setdefault(f"gpu:{index}", {})
        for name, value in zip(list(_FIELDS.values())[1:], values, strict=True):
            with contextlib.suppress(ValueError):
                number = float(value)
                gpu.setdefault(name, []).append(number)
    found: dict[str, dict[str, float]] = {}
    for gpu_name, series in seen.items():
        found[gpu_name] = {f"{name}_mean": sum(values) / len(values) for name, values in series.items()}
        found[gpu_name] |= {f"{name}_max": max(values) for name, values in series.items()}
        if power := series.get("power_w"):
            found[gpu_name]["energy_j"] = sum(power) * period_s
        found[gpu_name]["samples"] = float(max(map(len, series.values()), default=0))
    return found


class PeakSampler:
    """Asks a function for gauges every second and keeps the highest of each."""

    def __init__(self, read: Callable[[], Mapping[str, float]], period_s: float = _PERIOD_S) -> None:
        """Ask `read`; what it raises is a moment without a sample."""
        self._read, self._period_s = read, period_s
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._peaks: dict[str, float] = {}

    def start(self) -> None:
        """Begin."""
        self._over.clear()
        self._peaks = {}
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, float]:
        """End; return the peaks by name."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        return dict(self._peaks)

    def _sample(self) -> None:
        while not self._over.wait(self._period_s):
            # An engine that is busy may not answer in time; the load's own samples tell what that meant.
            with contextlib.suppress(Exception):
                for name, value in self._read().items():
                    self._peaks[name] = max(value, self._peaks.get(name, value))
