"""Verify the deployment on this host by this host itself, without SSH: `verify_here.py CLUSTER OUTPUT [LAYERS]`.

CLUSTER is what playbooks/describe.yml wrote for the site of one host; OUTPUT gets the verifier's JSON. `systemctl` on
PATH must be one for the units that run here. Exit code as of `kvstrata verify`.
"""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path

from kvstrata.cluster import TiersPolicy, load
from kvstrata.verify import runner
from kvstrata.verify.check import Group, Layer
from kvstrata.verify.here import HereShell
from kvstrata.verify.tiers.layer import TiersOptions


class Lines:
    """Progress as lines."""

    def begin(self, nodes: object, layers: object) -> None:
        """See runner.Progress."""

    def group(self, group: Group) -> None:
        """Print what a layer found."""
        print(f"{group.layer} of {group.host}, {group.duration_s:.1f} s")
        for check in group.checks:
            print(f"  {check.status} {check.id}: {check.seen}")

    def step(self, text: str) -> None:
        """Print a step."""
        print(f".. {text}")


def main() -> int:
    """Verify."""
    cluster = load(Path(sys.argv[1]))
    only = frozenset(Layer(name) for name in sys.argv[3].split(",")) if len(sys.argv) > 3 else None
    options = TiersOptions(TiersPolicy.NEVER, secrets.token_hex(8), None)
    shells = {node.name: HereShell() for node in cluster.nodes}
    found = runner.verify(cluster, shells, runner.Selection(options, only), cluster.verify.timeout_s, Lines())
    Path(sys.argv[2]).write_text(json.dumps(found.as_json(), indent=1) + "\n")
    return int(found.verdict)


sys.exit(main())
