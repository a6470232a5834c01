"""What a proof of the tiers holds for: as long as none of this changes, it needs no repetition."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from kvstrata.cluster import Cluster
from kvstrata.verify.shell import Shell

# To be raised when the proof itself proves more.
PROOF = 1
# Nodes that are asked at the same time.
AT_ONCE = 32
# Hashed on the node: what the files hold, passwords among it, stays there.
# Keys, certificates and ports of the edge come and go without the tiers.
_APART = r"\( -path ./edge -o -path ./firewall \) -prune"
_CONFIGURATION = (
    f"cd /etc/kvstrata && find . {_APART} -o -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum | sha256sum"
)


def fingerprint(cluster: Cluster, shells: Mapping[str, Shell], tier_nodes: tuple[str, ...]) -> str:
    """A hex digest of the model without passwords and of what every node reports of itself.

    Raises UnableError when a node can't be asked.
    """
    names = sorted(shells)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        reported = list(pool.map(lambda name: _reported(cluster, name, shells[name]), names))
    facts = {
        "proof": PROOF,
        "tier_nodes": list(tier_nodes),
        "model": _model(cluster),
        "nodes": dict(zip(names, reported, strict=True)),
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _model(cluster: Cluster) -> dict[str, Any]:
    document = asdict(cluster)
    # How a node is reached, how long is waited for it and what it costs change nothing of what was proven.
    for name in ("prices", "edge", "firewall"):
        del document[name]
    document["verify"] = {"prompt_tokens": cluster.verify.prompt_tokens}
    for node in document["nodes"]:
        del node["ssh"], node["edge"]
        for store in node["stores"]:
            del store["password"]
    return document


def _reported(cluster: Cluster, name: str, shell: Shell) -> dict[str, str]:
    units = cluster.node(name).units
    definitions = shell.run(["systemctl", "cat", "--no-pager", "--", *units]).text() if units else ""
    return {
        "release": shell.run(["readlink", "-f", "/opt/kvstrata/current"]).text(),
        "configuration": shell.run(["sh", "-c", _CONFIGURATION]).text(),
        "units": hashlib.sha256(definitions.encode()).hexdigest(),
    }
