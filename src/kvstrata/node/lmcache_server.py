"""Start LMCache's multiprocess server from a configuration file.

`python -m kvstrata.node.lmcache_server /etc/kvstrata/lmcache/server.json`

server.json: {"flags": {"--port": 5555, ...}, "l2": {...} or null}. `l2` holds the fields of kvstrata.l2's TierConfig.
The passwords of the stores are not among them, nor on any command line: the adapter reads them from the credential
`stores` (systemd LoadCredential), a JSON object that maps "host:port" to a password.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvstrata.node import lmcache_liveness

CREDENTIAL = "stores"


def build_argv(config: Mapping[str, Any], environ: Mapping[str, str]) -> list[str]:
    """Return the argument vector for `lmcache server`.

    Raises:
        ValueError: if there are stores and the process was not started with their passwords.
    """
    argv = ["lmcache", "server"]
    for flag, value in config["flags"].items():
        argv += [flag, str(value)]
    if config["l2"]:
        directory = environ.get("CREDENTIALS_DIRECTORY")
        if not directory:
            raise ValueError("CREDENTIALS_DIRECTORY is not set: start this through lmcache.service")
        params = {**config["l2"], "passwords_file": str(Path(directory, CREDENTIAL))}
        adapter = {
            "type": "plugin",
            "module_path": "kvstrata.l2.adapter",
            "class_name": "KvstrataL2Adapter",
            "adapter_params": params,
        }
        argv += ["--l2-adapter", json.dumps(adapter)]
    return argv


def main(args: Sequence[str]) -> int:
    """Run the server; returns when it stops."""
    if len(args) != 1:
        print("usage: lmcache_server CONFIG.json", file=sys.stderr)
        return 2
    argv = build_argv(json.loads(Path(args[0]).read_text()), os.environ)

    from lmcache.cli.main import main as lmcache_main
    from lmcache.v1.multiprocess.modules.management import ManagementModule

    lmcache_liveness.install(ManagementModule)
    sys.argv = argv
    return int(lmcache_main() or 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
