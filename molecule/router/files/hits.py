#!/usr/bin/env python3
"""hits.py ROUTER METRICS PATH: ask one long question until the router finds its beginning in what the engine told it.

Prints one JSON object: how often it asked, and the router's count of lookups by their result, before and after.
"""

from __future__ import annotations

import json
import sys
import urllib.request

MOST = 10
WORDS = "the machine remembers what it was told before and need not read it again " * 12


def fetch(url: str, body: dict[str, object] | None = None) -> str:
    """Return what a URL answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 - the test's own
    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
        return str(answer.read().decode())


def lookups(metrics: str) -> dict[str, float]:
    """Return the router's lookups by result."""
    name = 'vllm_router_kv_placement_lookups_total{result="'
    found = [line.removeprefix(name).partition('"} ') for line in fetch(metrics).splitlines() if line.startswith(name)]
    return {result: float(count) for result, _, count in found}


def main() -> None:
    """Ask until it is found, ten times at most."""
    router, metrics, path = sys.argv[1:]
    text = f"{path} {WORDS}"
    question = {"messages": [{"role": "user", "content": text}]} if "chat" in path else {"prompt": text}
    before = after = lookups(metrics)
    asked = 0
    while asked < MOST and after.get("hit", 0) == before.get("hit", 0):
        fetch(f"{router}{path}", {"model": "lab-llama", "max_tokens": 1, "temperature": 0, **question})
        asked += 1
        after = lookups(metrics)
    print(json.dumps({"path": path, "asked": asked, "before": before, "after": after}))


if __name__ == "__main__":
    main()
