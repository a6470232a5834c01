#!/usr/bin/env python3
"""client.py HOST COMMAND: ask an edge as its clients do; prints one JSON object.

Commands: `look` tries keys and paths; `whole TOKENS` asks for an answer that comes all at once; `stream TOKENS` says
when each token arrived; `steady SECONDS` asks all the time, also with streams, and counts what failed; `serial` tells
the certificate. EDGE_CA and EDGE_KEY are in the environment.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

PORT = 8443
LIES = {
    "X-Forwarded-For": "6.6.6.6",
    "X-Real-IP": "6.6.6.6",
    "Forwarded": "for=6.6.6.6",
    "X-Kvstrata-Client": "somebody",
}
KEY = os.environ["EDGE_KEY"]
# Each would be the router's own /list_workers, were it passed on.
WAYS_IN = (
    *(
        "/list_workers",
        "/add_worker?url=http://10.0.0.1",
        "/remove_worker?url=http://10.0.0.1",
        "/workers",
        "/get_loads",
    ),
    *(
        "/metrics",
        "/v1/../list_workers",
        "/v1/%2e%2e/list_workers",
        "/v1/..%2flist_workers",
        "//list_workers",
        "/flush_cache",
    ),
    *(
        "/v1/%252e%252e/list_workers",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/",
    ),
)


def connect(ca: str | None = os.environ["EDGE_CA"], timeout: float = 30) -> http.client.HTTPSConnection:
    """Return a connection that verifies the certificate by `ca`, or by the authorities of this machine."""
    context = ssl.create_default_context(cafile=ca)
    return http.client.HTTPSConnection(sys.argv[1], PORT, timeout=timeout, context=context)


def ask(
    method: str, path: str, body: Any = None, key: str | None = KEY, **headers: str
) -> tuple[int, dict[str, str], str]:
    """Send one request on a connection of its own and return status, headers and text."""
    connection = connect()
    sent = {"Content-Type": "application/json", **headers}
    if key is not None:
        sent["Authorization"] = f"Bearer {key}"
    connection.request(method, path, None if body is None else json.dumps(body), sent)
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    connection.close()
    return answer.status, dict(answer.getheaders()), text


def completion(**more: Any) -> dict[str, Any]:
    """Return a request for a completion."""
    return {"model": "test", "prompt": "Once", "max_tokens": 2, **more}


def look() -> dict[str, Any]:
    """Try keys, paths and lies."""
    path = "/v1/completions"
    refused, headers, text = ask("POST", path, completion(), key=None)
    tries = {"wrong": KEY + "x", "other_case": KEY.lower(), "shorter": KEY[:-1], "empty": ""}
    told = json.loads(ask("POST", path, completion(), **LIES)[2])
    unverified = ""
    try:
        connection = connect(ca=None)
        connection.request("GET", "/health")
    except ssl.SSLError as error:
        unverified = error.reason or str(error)
    return {
        "without_key": refused,
        "without_key_says": json.loads(text)["error"]["code"],
        "challenge": headers.get("WWW-Authenticate", ""),
        "refused_keys": {name: ask("GET", "/v1/models", key=key)[0] for name, key in tries.items()},
        "with_key": ask("GET", "/v1/models")[0],
        "health_without_key": ask("GET", "/health", key=None)[0],
        "seen": told["seen"],
        "paths": {path: ask("POST" if "worker?" in path else "GET", path)[0] for path in WAYS_IN},
        "no_path_says": json.loads(ask("GET", "/nothing")[2])["error"]["code"],
        "unverified": unverified,
    }


def stream(tokens: int) -> dict[str, Any]:
    """Read a stream byte by byte, and say after how many seconds each token was there."""
    connection = connect(timeout=10)
    started = time.monotonic()
    body = json.dumps(completion(stream=True, max_tokens=tokens))
    connection.request(
        "POST", "/v1/completions", body, {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    )
    answer = connection.getresponse()
    arrivals, line, ended = [], b"", False
    while byte := answer.read(1):
        line += byte
        if byte == b"\n":
            if line.startswith(b"data: {"):
                arrivals.append(round(time.monotonic() - started, 3))
            ended |= line.startswith(b"data: [DONE]")
            line = b""
    gaps = [after - before for before, after in pairwise(arrivals)]
    return {
        "status": answer.status,
        "tokens": len(arrivals),
        "ended": ended,
        "first_s": arrivals[0] if arrivals else None,
        "most_gap_s": max(gaps, default=0),
        "least_gap_s": min(gaps, default=0),
    }


def whole(tokens: int) -> dict[str, Any]:
    """Ask for an answer that comes all at once."""
    status, _, text = ask("POST", "/v1/completions", completion(max_tokens=tokens))
    return {"status": status, "text": text}


def steady(seconds: float) -> dict[str, Any]:
    """Ask from four threads, two of them for streams, until the time is over."""
    end = time.monotonic() + seconds
    counts = {"answered": 0, "streamed": 0}
    failed: list[str] = []

    def plain() -> None:
        while time.monotonic() < end:
            try:
                status, _, text = ask("POST", "/v1/completions", completion())
            except (OSError, http.client.HTTPException) as error:
                status, text = 0, repr(error)
            if status == 200:
                counts["answered"] += 1
            else:
                failed.append(f"{status}: {text[:200]}")

    def streaming() -> None:
        while time.monotonic() < end:
            try:
                seen = stream(5)
                whole = seen["tokens"] == 5 and seen["ended"]
            except (OSError, http.client.HTTPException, IndexError) as error:
                seen, whole = {"error": repr(error)}, False
            if whole:
                counts["streamed"] += 1
            else:
                failed.append(f"stream: {seen}")

    threads = [threading.Thread(target=one) for one in (plain, plain, streaming, streaming)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {**counts, "failed": failed}


def serial() -> dict[str, Any]:
    """Tell the serial number of the certificate that is shown now."""
    connection = connect()
    connection.connect()
    shown: dict[str, Any] = connection.sock.getpeercert() or {}
    return {"serial": shown.get("serialNumber"), "names": sorted(value for _, value in shown.get("subjectAltName", ()))}


if __name__ == "__main__":
    commands: dict[str, Callable[[], dict[str, Any]]] = {
        "look": look,
        "serial": serial,
        "whole": lambda: whole(int(sys.argv[3])),
        "stream": lambda: stream(int(sys.argv[3])),
        "steady": lambda: steady(float(sys.argv[3])),
    }
    print(json.dumps(commands[sys.argv[2]]()))
