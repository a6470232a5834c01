#!/usr/bin/env python3
"""Ask a frontend for completions, several at a time, and tell which workers gave them and which failed.

load.py URL SECONDS [FOLDER]: writes the file `started` there once two workers have answered, and ends a second after
there is a file `done`, or after SECONDS. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

CLIENTS = 6
TOKENS = 150
AFTER_S = 1.0


def ask(url: str, prompt: str, tokens: int) -> dict[str, Any]:
    """Return the answer to a request, which also says which worker gave it."""
    body = {"model": "lab-llama", "prompt": prompt, "max_tokens": tokens, "nvext": {"extra_fields": ["worker_id"]}}
    request = urllib.request.Request(  # noqa: S310 - the URL of the scenario
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - as above
        answer: dict[str, Any] = json.load(response)
    return answer


def main(url: str, seconds: str, folder: str | None = None) -> None:
    """Put the load on the frontend for that long."""
    workers: Counter[str] = Counter()
    failed: list[str] = []
    end = time.monotonic() + float(seconds)

    def over() -> bool:
        done = Path(folder) / "done" if folder else None
        return time.monotonic() > end or (
            done is not None and done.exists() and time.time() > done.stat().st_mtime + AFTER_S
        )

    def client(number: int) -> None:
        turn = 0
        while not over():
            turn += 1
            try:
                answer = ask(url, f"{number} {turn} " + "words of a prompt " * 20, TOKENS)
                if answer["usage"]["completion_tokens"] != TOKENS:
                    failed.append(f"{answer['usage']['completion_tokens']} of {TOKENS} tokens")
                workers[str(answer["nvext"]["worker_id"]["decode_worker_id"])] += 1
            except (OSError, ValueError, KeyError) as error:
                told = error.read().decode()[:200] if isinstance(error, urllib.error.HTTPError) else ""
                failed.append(f"{error} {told}")
                time.sleep(0.2)  # a frontend that is down answers at once
            if folder and len(workers) > 1:
                (Path(folder) / "started").touch()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"workers": workers, "answered": sum(workers.values()), "failed": failed[:20]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
