"""The routers and replicas of a site, and who takes part in serving just now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from kvstrata.cluster import Cluster
from kvstrata.drain.engine import EngineHost
from kvstrata.drain.replicas import Replica
from kvstrata.drain.routers import RouterHost
from kvstrata.verify.context import NodeContext
from kvstrata.verify.shell import Shell
from kvstrata.verify.ssh import SshShell

DYNAMO = "dynamo"
_STEP_S = 60.0


class Site:
    """A site through connections to its nodes. `say` gets a line of progress."""

    def __init__(self, cluster: Cluster, shells: Mapping[str, Shell], say: Callable[[str], None]) -> None:
        """Nothing is contacted yet."""
        self.cluster = cluster
        self.say = say
        self.contexts = {
            node.name: NodeContext(cluster, node, shells[node.name], None, _STEP_S) for node in cluster.nodes
        }
        routed = [] if self.dynamo else [node for node in cluster.nodes if node.router is not None]
        self.routers = tuple(RouterHost(self.contexts[node.name]) for node in routed)

    @property
    def dynamo(self) -> bool:
        """Whether frontends find their workers by themselves, so that there is no router to tell anything."""
        return self.cluster.profile == DYNAMO

    def engine(self, replica: Replica) -> EngineHost:
        """The replica at its own port."""
        return EngineHost(self.contexts[replica.node.name], replica)


@contextmanager
def connected(cluster: Cluster, say: Callable[[str], None]) -> Iterator[Site]:
    """A site whose connections are made when first used, and closed at the end."""
    shells = {node.name: SshShell(node.ssh) for node in cluster.nodes}
    try:
        yield Site(cluster, shells, say)
    finally:
        for shell in shells.values():
            shell.close()
