"""Profile each engine of this machine for some seconds while it is under load: where does a step's time go?

Engines must have been started with vLLM's torch profiler (`profiler-config`; serve.sh does so with KV_PROFILE). Each
one that answers on its port is profiled once, as soon as so many requests run in it; vLLM itself writes its trace
into the folder of its configuration. Ends when nothing is left of the process that it was told to watch.

    python3 profile_engines.py PID SECONDS [RUNNING]

A line for each: the moment, port, process and seconds, by which a trace finds its phase in the journal of the run.
"""

from __future__ import annotations

import http.client
import re
import sys
import time
import urllib.request
from pathlib import Path

PROC = Path("/proc")
RUNNING = re.compile(r"^vllm:num_requests_running\S* (\S+)", re.MULTILINE)
# What there is where an engine ends meanwhile.
UNANSWERED = (OSError, http.client.HTTPException)
EVERY_S = 0.5
PATIENCE_S = 120.0


def engines() -> dict[int, int]:
    """Return the ports of the engines that were started from a file, by their process ids."""
    found = {}
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_text().split("\0")
            config = Path(words[words.index("--config") + 1]).read_text()
        except (OSError, ValueError, IndexError, UnicodeDecodeError):
            continue
        port = re.search(r"^port: (\d+)$", config, re.MULTILINE)
        if port and "vllm.entrypoints.cli.main" in words:
            found[int(entry.name)] = int(port[1])
    return found


def running(port: int) -> float:
    """Return how many requests an engine runs now; 0 where it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return sum(float(value) for value in RUNNING.findall(answer.read().decode()))
    except UNANSWERED:
        return 0.0


def profile(port: int, seconds: float) -> None:
    """Let an engine profile itself for so long; raises one of UNANSWERED."""
    for word, after_s in (("start", seconds), ("stop", 0.0)):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/{word}_profile", b"")
        # It writes its trace before it answers.
        urllib.request.urlopen(request, timeout=PATIENCE_S).close()  # noqa: S310 - of this machine
        time.sleep(after_s)


def main(words: list[str]) -> int:
    """Watch until the process has ended; 1 where an engine could not be profiled."""
    watched, seconds = PROC / words[0], float(words[1])
    least = float(words[2]) if len(words) > 2 else 5.0
    done: set[int] = set()
    code = 0
    while watched.exists():
        for pid, port in engines().items():
            if pid in done or running(port) < least:
                continue
            done.add(pid)
            moment = time.strftime("%H:%M:%S")
            try:
                profile(port, seconds)
            except UNANSWERED as error:
                code = 1
                print(f"{moment} port {port}, process {pid}: NOT PROFILED: {error}", flush=True)
            else:
                print(f"{moment} port {port}, process {pid}: profiled for {seconds:g} s", flush=True)
        time.sleep(EVERY_S)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
