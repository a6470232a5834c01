"""Is what the unit runner started a deployment that serves and caches? JSON into a file; exit 1 where it is not.

Step `serve` waits for the engine, and for the router where there is one, sends prompts, and the first of them again:
its tokens must come from a cache. What each process has is read from /proc, to be compared with its unit. Step
`restart` kills the engine: it must come back by Restart= and find the prompt in the cache daemon, which went on; and
the router must take it back. It goes on from the file of `serve`, and is not tried where that did not pass.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import traceback
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ENGINE, CACHE = "vllm@0.service", "lmcache.service"
# Restarts of the killed engine that are waited for, so that the file says when it came back: more than one is a fault.
TRIES = 6
LIMITS = {"Max open files": "LimitNOFILE", "Max locked memory": "LimitMEMLOCK"}


def ask(url: str, body: object = None, timeout_s: float = 120) -> Any:
    """Return the JSON that a server answers; raises OSError."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 - of the rendered files
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
        text = answer.read()
    return json.loads(text) if text.startswith(b"{") else None


def healthy(url: str) -> bool:
    """Return whether a server answers."""
    try:
        ask(url, timeout_s=5)
    except OSError:
        return False
    return True


def wait(condition: Callable[[], bool], what: str, until: float) -> float:
    """Wait for something; return the seconds, or raise TimeoutError."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not within {time.monotonic() - began:.0f} s")
        time.sleep(0.5)
    return round(time.monotonic() - began, 1)


def state(folder: Path, unit: str) -> dict[str, Any]:
    """Return what the runner says of a unit."""
    return dict(json.loads((folder / f"{unit}.json").read_text()))


def steady(url: str, folder: Path, most: int) -> bool:
    """Return whether the engine is healthy; RuntimeError where it ends again and again: no need to wait for that."""
    found = state(folder, ENGINE)
    if found["restarts"] > most:
        raise RuntimeError(f"{ENGINE} ended ({found['result']}), {found['restarts']} restarts; allowed here: {most}")
    return healthy(f"{url}/health")


def process(pid: int) -> dict[str, Any]:
    """Return what a process has, as far as its unit says something about it. No passwords: names of variables alone."""
    base = Path("/proc") / str(pid)
    status = dict(line.split(":", 1) for line in (base / "status").read_text().splitlines())
    limits = {
        name: line.split()[-3:-1]
        for line in (base / "limits").read_text().splitlines()
        for name in LIMITS
        if name in line
    }
    return {
        "argv": (base / "cmdline").read_text().split("\0")[:-1],
        "variables": sorted(word.partition("=")[0] for word in (base / "environ").read_text().split("\0") if word),
        "limits": {LIMITS[name]: found for name, found in limits.items()},
        "user": status["Uid"].split()[1],
        "umask": status["Umask"].strip(),
        "capabilities": status["CapEff"].strip(),
        "no_new_privileges": status["NoNewPrivs"].strip(),
    }


def gpu_mib() -> list[int] | None:
    """Return what is in use of each GPU; None where there is none to ask."""
    words = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    used = done.stdout.split()
    return [int(word) for word in used] if done.returncode == 0 and all(map(str.isdigit, used)) else None


def prompts(config: dict[str, Any], tokens: int, count: int) -> list[list[int]]:
    """Return prompts of random tokens, the same each time."""
    rng = random.Random(7)  # noqa: S311 - prompts, no secret
    size = json.loads((Path(config["model"]) / "config.json").read_text())["vocab_size"]
    return [[rng.randrange(size // 2, size - 8) for _ in range(tokens)] for _ in range(count)]


def served(url: str, model: str, prompt: list[int]) -> dict[str, Any]:
    """Return seconds, cached tokens and text of an answer."""
    began = time.monotonic()
    body = {"model": model, "prompt": prompt, "max_tokens": 16, "temperature": 0, "ignore_eos": True}
    found = ask(f"{url}/v1/completions", body)
    details = found["usage"].get("prompt_tokens_details") or {}
    seconds = round(time.monotonic() - began, 3)
    return {"s": seconds, "cached": details.get("cached_tokens") or 0, "text": found["choices"][0]["text"]}


class Site:
    """Where what was started is asked."""

    def __init__(self, rendered: Path, tokens: int, *, router: bool) -> None:
        """Read the engine's configuration, and the router's unit where it runs."""
        config = yaml.safe_load((rendered / "etc/kvstrata/vllm/0.yaml").read_text())
        self.engine = self.front = f"http://{config['host']}:{config['port']}"
        if router:
            unit = (rendered / "etc/systemd/system/vllm-router.service").read_text()
            host, port = (re.findall(rf"^ +--{name} (\S+)", unit, re.MULTILINE)[0] for name in ("host", "port"))
            self.front = f"http://{host}:{port}"
        self.model = config["served-model-name"][0]
        self.tokens = min(tokens, config["max-model-len"] - 64)
        self.config = config


def serve(given: argparse.Namespace, site: Site, found: dict[str, Any]) -> None:
    """Wait until it serves, and let it; what is wrong is raised, and `found` has what was seen until then."""
    until = time.monotonic() + given.seconds
    found["engine_healthy_s"] = wait(lambda: steady(site.engine, given.state, 0), "the engine's health", until)
    if site.front != site.engine:
        found["router_healthy_s"] = wait(lambda: healthy(f"{site.front}/health"), "the router's health", until)
    found["processes"] = {
        file.stem: process(state(given.state, file.stem)["main_pid"])
        for file in sorted(given.state.glob("*.service.json"))
    }
    sent = prompts(site.config, site.tokens, given.prompts)
    found["first"] = [served(site.front, site.model, prompt) for prompt in sent]
    found["again"] = served(site.front, site.model, sent[0])
    if found["first"][0]["cached"]:
        raise AssertionError("the first prompt was cached before it was ever sent")
    if found["again"]["cached"] < site.tokens // 2:
        raise AssertionError(f"the first prompt again: {found['again']['cached']} of {site.tokens} tokens cached")


def restart(given: argparse.Namespace, site: Site, found: dict[str, Any]) -> None:
    """Kill the engine, and ask it again once it is back; as `serve`."""
    until = time.monotonic() + given.seconds
    prompt = prompts(site.config, site.tokens, 1)[0]
    killed, before = state(given.state, ENGINE)["main_pid"], gpu_mib()
    os.kill(killed, signal.SIGKILL)
    found["back_s"] = wait(
        lambda: state(given.state, ENGINE)["main_pid"] not in (0, killed), "Restart= of the engine", until
    )
    # The new one has not come to its GPU yet: what is still in use there, LMCache holds of the dead one's KV.
    found["gpu_mib"] = {"before_the_kill": before, "after_it": gpu_mib()}
    found["healthy_again_s"] = wait(
        lambda: steady(site.engine, given.state, TRIES), "the engine's health after its restart", until
    )
    found["after_restart"] = served(site.engine, site.model, prompt)
    texts = {found["first"][0]["text"], found["again"]["text"], found["after_restart"]["text"]}
    if site.front != site.engine:
        taken: list[dict[str, Any]] = []

        def answers() -> bool:
            with contextlib.suppress(OSError):
                taken.append(served(site.front, site.model, prompt))
            return bool(taken)

        found["router_back_s"] = wait(answers, "an answer through the router", until)
        texts.add(taken[0]["text"])
    found["same_text"] = len(texts) == 1
    found["restarts"] = {unit: state(given.state, unit)["restarts"] for unit in (ENGINE, CACHE)}
    if found["after_restart"]["cached"] < site.tokens // 2:
        raise AssertionError(f"after the restart: {found['after_restart']['cached']} of {site.tokens} from LMCache")
    if found["restarts"] != {ENGINE: 1, CACHE: 0}:
        raise AssertionError(f"restarts are {found['restarts']}")


STEPS = {"serve": serve, "restart": restart}


def main() -> int:
    """Parse, take the step, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--rendered", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--router", choices=("yes", "no"), required=True)
    parser.add_argument("--tokens", type=int, default=5000)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    found: dict[str, Any] = {"ok": False, "steps": {}}
    if given.step == "restart":
        found = json.loads(given.output.read_text()) if given.output.exists() else found
        if found["steps"].get("serve") != "ok":
            print("restart: not tried, for it did not serve", file=sys.stderr)
            return 1
    before = set(found)
    try:
        STEPS[given.step](given, Site(given.rendered, given.tokens, router=given.router == "yes"), found)
        found["steps"][given.step] = "ok"
    except Exception:
        found["units"] = {file.stem: state(given.state, file.stem) for file in given.state.glob("*.service.json")}
        found["steps"][given.step] = traceback.format_exc()[-2000:]
    found["ok"] = [found["steps"].get(step) for step in STEPS] == ["ok"] * len(STEPS)
    given.output.write_text(json.dumps(found, indent=1) + "\n")
    seen = {name: value for name, value in found.items() if name not in before and name != "processes"}
    print(json.dumps(seen | {given.step: found["steps"][given.step]}, indent=1))
    return 0 if found["steps"][given.step] == "ok" else 1


if __name__ == "__main__":
    sys.exit(main())
