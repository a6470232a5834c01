"""Faults of services: another configuration, another model, another command line. Each has its other half."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable

from kvstrata.lab import paths
from kvstrata.lab.errors import LabError
from kvstrata.lab.planted.site import Node, Site
from kvstrata.models import lab_llama

OTHER_NAMESPACE = "kvs-00000000000000ff"
_CACHE = ("/etc/kvstrata/lmcache/server.json", "lmcache.service")
_ENGINE = ("/etc/kvstrata/vllm/0.yaml", "vllm@0.service")
_ROUTER = "vllm-router.service"
_OTHER_MODEL = f"{lab_llama.NAME}-planted"
_OTHER_SEED = 2
# Where a node keeps a file that was changed; not in /run, for a reboot would leave the change alone.
_KEPT = "/var/lib/kvstrata-planted"


def another_namespace(site: Site) -> None:
    """Have node2's LMCache file its chunks under a name that no inventory gives."""
    edit(site.node("node2"), *_CACHE, with_namespace)


def own_namespace(site: Site) -> None:
    """Give it its own again."""
    put_back(site.node("node2"), *_CACHE)


def with_namespace(text: str) -> str:
    """The server's configuration with the other namespace."""
    document = json.loads(text)
    document["l2"]["namespace"] = OTHER_NAMESPACE
    return json.dumps(document, indent=4) + "\n"


def no_connector(site: Site) -> None:
    """Start node2's engine without its way to LMCache."""
    edit(site.node("node2"), *_ENGINE, without_connector)


def own_connector(site: Site) -> None:
    """Give it back its way."""
    put_back(site.node("node2"), *_ENGINE)


def without_connector(text: str) -> str:
    """The engine's configuration without its kv-transfer-config; LabError where it has none."""
    lines = text.splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith("kv-transfer-config:")]
    if len(kept) != len(lines) - 1:
        raise LabError(f"{len(lines) - len(kept)} lines kv-transfer-config in {_ENGINE[0]}: 1 was expected")
    return "".join(kept)


def another_model(site: Site) -> None:
    """Serve other weights under the same path and name on node2."""
    folder = paths.models_dir() / _OTHER_MODEL
    if not lab_llama.is_whole(folder, lab_llama.Shape(), _OTHER_SEED):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        lab_llama.generate(folder, lab_llama.Shape(), _OTHER_SEED)
    own, other = f"/srv/models/{lab_llama.NAME}", f"/srv/models/{_OTHER_MODEL}"
    site.node("node2").run(f"mount --bind {other} {own}\nsystemctl restart vllm@0.service")


def own_model(site: Site) -> None:
    """Serve the model of the inventory again."""
    own = f"/srv/models/{lab_llama.NAME}"
    site.node("node2").run(f"if mountpoint -q {own}; then umount {own}; systemctl restart vllm@0.service; fi")
    shutil.rmtree(paths.models_dir() / _OTHER_MODEL, ignore_errors=True)


def round_robin(site: Site) -> None:
    """Start the router so that it gives requests to engines in turn, whatever they hold."""
    node = site.nodes[0]
    text = in_turn(node.run(f"cat /etc/systemd/system/{_ROUTER}"))
    drop_in(node, _ROUTER, f"[Service]\nExecStart=\n{text}\n")


def own_policy(site: Site) -> None:
    """Start the router as it was deployed."""
    no_drop_in(site.nodes[0], _ROUTER)


def in_turn(unit: str) -> str:
    """The unit's command line with the policy round_robin; LabError where it has no policy."""
    found = re.search(r"^ExecStart=(?:.*\\\n)*.*$", unit, re.MULTILINE)
    command, count = re.subn(r"--policy \S+", "--policy round_robin", found[0] if found else "")
    if count != 1:
        raise LabError(f"{count} options --policy in {_ROUTER}: 1 was expected")
    return command


def bind_to_a_cpu(site: Site) -> None:
    """Have a store of node2 run on one CPU."""
    drop_in(site.node("node2"), "kvrocks@d1.service", "[Service]\nCPUAffinity=0\n")


def unbind(site: Site) -> None:
    """Let it run where it was told to."""
    no_drop_in(site.node("node2"), "kvrocks@d1.service")


def edit(node: Node, path: str, unit: str, change: Callable[[str], str]) -> None:
    """Change a file of the node, keep what it was, and restart the unit that reads it."""
    kept = _kept(path)
    text = change(node.run(f"cat {path}"))
    node.run(f"mkdir -p {_KEPT}\n[ -e {kept} ] || cp -p {path} {kept}\n{written(path, text)}\n{restart(unit)}")


def put_back(node: Node, path: str, unit: str) -> None:
    """Undo `edit`, if it was made."""
    kept = _kept(path)
    node.run(f"if [ -e {kept} ]; then cp -p {kept} {path}; rm {kept}; {restart(unit)}; fi")


def restart(unit: str) -> str:
    """The command that restarts a unit, and with the cache daemon its engine.

    An engine's worker registers again only when one of its PINGs had no answer. It begins to send them with its first
    store, and a daemon that is back in seconds answers the next: the engine would run without its cache from then on
    (LMCache 0.5.6, vllm_multi_process_adapter.py).
    """
    return f"systemctl restart {unit}" + (f" && systemctl restart {_ENGINE[1]}" if unit == _CACHE[1] else "")


def drop_in(node: Node, unit: str, text: str) -> None:
    """Add to a unit until the next boot, and restart it."""
    path = _drop_in(unit)
    folder = path.rpartition("/")[0]
    node.run(f"mkdir -p {folder}\n{written(path, text)}\nsystemctl daemon-reload\nsystemctl restart {unit}")


def no_drop_in(node: Node, unit: str) -> None:
    """Undo `drop_in`, if it was made."""
    path = _drop_in(unit)
    node.run(f"if [ -e {path} ]; then rm {path}; systemctl daemon-reload; systemctl restart {unit}; fi")


def _drop_in(unit: str) -> str:
    return f"/run/systemd/system/{unit}.d/planted.conf"


def _kept(path: str) -> str:
    return f"{_KEPT}/{path.strip('/').replace('/', '-')}"


def written(path: str, text: str) -> str:
    """A command that writes the text, whatever is in it."""
    return f"echo {base64.b64encode(text.encode()).decode()} | base64 -d > {path}"
