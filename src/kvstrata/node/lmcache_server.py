"""Start LMCache's multiprocess server from a configuration file and a credential.

`python -m kvstrata.node.lmcache_server /etc/kvstrata/lmcache/server.json`

LMCache takes its L2 adapters, passwords included, on the command line only, where every user of the host can
read them. This launcher builds the argument list inside the process instead: what `ps` shows is the line above.

server.json: {"flags": {"--port": 5555, ...}, "stores": [{"host": "10.0.0.1", "port": 6666, "drive": "d0",
"key_prefix": "...", "num_workers": 2}]}. The credential `stores` (systemd LoadCredential, a JSON object) maps
"host:port" to that store's password.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CREDENTIAL = "stores"


def valkey_adapter(store: Mapping[str, Any], password: str) -> dict[str, Any]:
    """Return the configuration of LMCache's `valkey` L2 adapter for one store.

    LMCache 0.5.6 hands user name and password to glide in the wrong order, so they are swapped here: `default` is
    the user that Redis and Kvrocks authenticate when only a password is set.
    """
    return {
        "type": "valkey",
        "startup_nodes": f"{store['host']}:{store['port']}",
        "username": password,
        "password": "default",
        "key_prefix": store["key_prefix"],
        "num_workers": store["num_workers"],
        "request_timeout": store["timeout_s"],
        "connection_timeout": store["timeout_s"],
    }


def build_argv(config: Mapping[str, Any], passwords: Mapping[str, str]) -> list[str]:
    """Return the argument vector for `lmcache server`.

    Raises:
        ValueError: if a store has no password in the credential.
    """
    argv = ["lmcache", "server"]
    for flag, value in config["flags"].items():
        argv += [flag, str(value)]
    for store in config["stores"]:
        endpoint = f"{store['host']}:{store['port']}"
        if endpoint not in passwords:
            raise ValueError(f"credential {CREDENTIAL!r} has no password for the store {endpoint}")
        argv += ["--l2-adapter", json.dumps(valkey_adapter(store, passwords[endpoint]))]
    return argv


def read_passwords(environ: Mapping[str, str]) -> dict[str, str]:
    """Return "host:port" -> password from the credential that systemd placed for this unit.

    Raises:
        ValueError: if the process was not started with the credential.
    """
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise ValueError("CREDENTIALS_DIRECTORY is not set: start this through lmcache.service")
    passwords: dict[str, str] = json.loads(Path(directory, CREDENTIAL).read_text())
    return passwords


def main(args: Sequence[str]) -> int:
    """Run the server; returns when it stops."""
    if len(args) != 1:
        print("usage: lmcache_server CONFIG.json", file=sys.stderr)
        return 2
    config = json.loads(Path(args[0]).read_text())
    argv = build_argv(config, read_passwords(os.environ) if config["stores"] else {})

    from lmcache.cli.main import main as lmcache_main

    from kvstrata.node import store_policy

    store_policy.register()
    sys.argv = argv
    return int(lmcache_main() or 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
