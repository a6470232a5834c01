"""Is what the unit runner started a deployment that serves and caches? JSON into a file; exit 1 where it is not.

Waits for the engine, sends prompts that do not fit into its KV together, and the first of them again: its tokens must
come from LMCache, and the answer be the same. Then the engine is killed: it must come back by Restart=, and find the
prompt in the cache daemon, which went on. What each process has is read from /proc and compared with its unit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
import traceback
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ENGINE, CACHE = "vllm@0.service", "lmcache.service"
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


def run(given: argparse.Namespace, found: dict[str, Any]) -> None:
    """Do everything; what is wrong is raised, and `found` has what was seen until then."""
    until = time.monotonic() + given.seconds
    config = yaml.safe_load((given.rendered / "etc/kvstrata/vllm/0.yaml").read_text())
    engine = f"http://{config['host']}:{config['port']}"
    front = f"http://{config['host']}:9000" if given.router == "yes" else engine
    model = config["served-model-name"][0]
    found["engine_healthy_s"] = wait(lambda: healthy(f"{engine}/health"), "the engine's health", until)
    if given.router == "yes":
        found["router_healthy_s"] = wait(lambda: healthy(f"{front}/health"), "the router's health", until)
    found["processes"] = {
        file.stem: process(state(given.state, file.stem)["main_pid"])
        for file in sorted(given.state.glob("*.service.json"))
    }
    tokens = min(given.tokens, config["max-model-len"] - 64)
    sent = prompts(config, tokens, given.prompts)
    found["first"] = [served(front, model, prompt) for prompt in sent]
    found["again"] = served(front, model, sent[0])
    if given.prompts > 1 and found["first"][0]["cached"]:
        raise AssertionError("the first prompt was cached before it was ever sent")
    if found["again"]["cached"] < tokens // 2:
        raise AssertionError(f"the first prompt again: {found['again']['cached']} of {tokens} tokens cached")
    killed = state(given.state, ENGINE)["main_pid"]
    os.kill(killed, signal.SIGKILL)
    found["back_s"] = wait(
        lambda: state(given.state, ENGINE)["main_pid"] not in (0, killed), "Restart= of the engine", until
    )
    found["healthy_again_s"] = wait(lambda: healthy(f"{engine}/health"), "the engine's health after its restart", until)
    found["after_restart"] = served(engine, model, sent[0])
    found["restarts"] = {unit: state(given.state, unit)["restarts"] for unit in (ENGINE, CACHE)}
    if found["after_restart"]["cached"] < tokens // 2:
        raise AssertionError(f"after the restart: {found['after_restart']['cached']} of {tokens} tokens from LMCache")
    if found["restarts"] != {ENGINE: 1, CACHE: 0}:
        raise AssertionError(f"restarts are {found['restarts']}")
    texts = {found["first"][0]["text"], found["again"]["text"], found["after_restart"]["text"]}
    found["same_text"] = len(texts) == 1


def main() -> int:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--rendered", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--router", choices=("yes", "no"), required=True)
    parser.add_argument("--tokens", type=int, default=5000)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    found: dict[str, Any] = {"ok": False}
    try:
        run(given, found)
        found["ok"] = True
    except Exception:
        found["error"] = traceback.format_exc()[-2000:]
    given.output.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({name: value for name, value in found.items() if name != "processes"}, indent=1))
    return 0 if found["ok"] else 1


sys.exit(main())
