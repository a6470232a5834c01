"""What the checks of one node, and those of the whole site, have at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kvstrata.cluster import Cluster, Engine, Node
from kvstrata.verify import hints
from kvstrata.verify.check import Check, Layer, Question
from kvstrata.verify.document import Measured
from kvstrata.verify.dynamo import Worker
from kvstrata.verify.http import Service
from kvstrata.verify.shell import Shell


@dataclass(frozen=True)
class Peer:
    """Another node that looks at this one from the outside."""

    node: Node
    shell: Shell


@dataclass(frozen=True)
class NodeContext:
    """One node under verification. `timeout_s` bounds its slowest single step, in seconds."""

    cluster: Cluster
    node: Node
    shell: Shell
    peer: Peer | None
    timeout_s: float

    def question(self, check_id: str, what: str, expected: str, hint: str) -> Question:
        """A question about this node; its layer is the first part of the id."""
        return Question(check_id, Layer(check_id.partition(".")[0]), self.node.name, what, expected, hint)

    def command(self, command: str) -> str:
        """The hint to run a command on this node."""
        return hints.on_node(self.node.ssh, command)

    def journal(self, unit: str) -> str:
        """The hint to read a unit's journal on this node."""
        return hints.journal(self.node.ssh, unit)

    def service(self, host: str, port: int, timeout_s: float = 10) -> Service:
        """An HTTP service as this node sees it."""
        return Service(self.shell, host, port, min(timeout_s, self.timeout_s))

    def engine(self, engine: Engine, timeout_s: float = 10) -> Service:
        """An engine of the site as this node sees it, whatever serves its API."""
        if not engine.of_dynamo:
            return self.service(engine.host, engine.port, timeout_s)
        # This node's own frontend first: a way less that may be broken.
        routers = sorted(self.cluster.routers, key=lambda router: router is not self.node.router)
        frontends = [self.service(router.host, router.port, timeout_s) for router in routers]
        path = self.cluster.model.path
        return Worker(self.shell, engine, frontends, path, min(timeout_s, self.timeout_s))


@dataclass(frozen=True)
class SiteContext:
    """The whole site, after the layers of its nodes. `timeout_s` bounds each long wait, in seconds.

    `contexts` are the nodes under verification that answer, `earlier` what was checked before. A layer leaves its raw
    samples in `tables`, as flat rows under a name of its own.
    """

    cluster: Cluster
    contexts: Mapping[str, NodeContext]
    earlier: Sequence[Check]
    say: Callable[[str], None]
    timeout_s: float
    seed: str
    save_baseline: bool = False
    tables: Measured = field(default_factory=dict)

    def question(self, check_id: str, what: str, expected: str, hint: str) -> Question:
        """A question about the site; its layer is the first part of the id."""
        return Question(check_id, Layer(check_id.partition(".")[0]), self.cluster.site, what, expected, hint)
