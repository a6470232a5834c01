"""What commands print on a node, in the form that the verifier asks for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def files(texts: Mapping[str, Callable[[], str]]) -> Callable[[Sequence[str]], str]:
    """The command of kvstrata.verify.nodefiles, on a node that has these files."""

    def printed(argv: Sequence[str]) -> str:
        said = ""
        for path in argv[4:]:
            there = path in texts
            said += f"\x01{path}\x02{texts[path]() if there else 'cat: no such file'}\x03{0 if there else 1}"
        return said

    return printed


def probe(wrong: Mapping[str, str] | None = None) -> Callable[[Sequence[str]], str]:
    """The command of kvstrata.verify.layers.cache.adapter; `wrong` says why a store, by host:port, is no good."""

    def printed(argv: Sequence[str]) -> str:
        return json.dumps(found(argv[5:], wrong or {}))

    return printed


def found(endpoints: Sequence[str], wrong: Mapping[str, str]) -> dict[str, Any]:
    """What kvstrata.l2.probe prints."""
    took = {"store": 0.04, "lookup": 0.001, "load": 0.012, "delete": 0.002}
    return {
        "namespace": "probe-0123456789ab",
        "bytes": 4 << 20,
        "seconds": 0.1,
        "stores": {
            endpoint: {"ok": endpoint not in wrong, "why": wrong.get(endpoint, ""), "full": False, "took_s": took}
            for endpoint in endpoints
        },
    }
