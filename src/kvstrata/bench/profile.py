"""The configuration files of the servers under test."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from kvstrata.bench.study import Setup

# kvrocks_malloc_conf of roles/kvrocks; why: docs/kvrocks.md.
TUNED_MALLOC = "oversize_threshold:0,dirty_decay_ms:60000,muzzy_decay_ms:60000,background_thread:true"


def render(setup: Setup, port: int, data: Path) -> str:
    """Return the configuration of one instance on loopback, with its data in `data`."""
    fixed = {"bind": "127.0.0.1", "port": str(port), "dir": str(data), "daemonize": "no", "supervised": "no"}
    if setup.server == "redis":
        # No persistence and no bound: the baseline is DRAM alone.
        return _lines(fixed | {"save": '""', "appendonly": "no"})
    return _lines(fixed | {"log-dir": "stdout", "maxclients": "2000"} | dict(setup.directives))


def environment(setup: Setup) -> dict[str, str]:
    """Return the environment of the server: this process's, but with the setup's allocator settings and no others."""
    inherited = {key: value for key, value in os.environ.items() if key != "MALLOC_CONF"}
    return inherited | ({"MALLOC_CONF": TUNED_MALLOC} if setup.allocator == "tuned" else {})


def _lines(directives: Mapping[str, str]) -> str:
    return "".join(f"{name} {value}\n" for name, value in directives.items())
