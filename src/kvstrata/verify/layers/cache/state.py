"""What LMCache says of itself at /status, as far as the checks need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvstrata.cluster import Cluster, Node, Store
from kvstrata.verify.check import UnmetError
from kvstrata.verify.context import NodeContext

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class State:
    """One answer of /status, decoded."""

    raw: Mapping[str, Any]

    @property
    def storage(self) -> Mapping[str, Any]:
        """Its tiers."""
        return _mapping(self.raw.get("storage_manager"))

    @property
    def adapters(self) -> list[Mapping[str, Any]]:
        """Its L2 adapters."""
        return [_mapping(adapter) for adapter in self.storage.get("l2_adapters", [])]

    @property
    def endpoints(self) -> dict[str, Mapping[str, Any]]:
        """What kvstrata.l2 tells of each store (kvstrata.l2.status), by host:port as it connects."""
        found: dict[str, Mapping[str, Any]] = {}
        for adapter in self.adapters:
            found |= {name: _mapping(told) for name, told in _mapping(adapter.get("endpoints")).items()}
        return found

    @property
    def left_alone(self) -> dict[str, Mapping[str, Any]]:
        """The endpoints whose circuit breaker is not closed."""
        return {name: told for name, told in self.endpoints.items() if not told.get("up", False)}

    @property
    def sick_adapters(self) -> list[str]:
        """The types of the adapters that say that they are not healthy."""
        return [str(adapter.get("type", "?")) for adapter in self.adapters if adapter.get("is_healthy") is not True]

    def counted(self, name: str) -> int:
        """A counter of the adapters, since LMCache's start."""
        return sum(int(_mapping(adapter.get("counters")).get(name, 0)) for adapter in self.adapters)


def fetch(ctx: NodeContext, http_port: int) -> State:
    """Ask LMCache on the node; UnmetError when it does not answer as it should."""
    raw = ctx.service(LOOPBACK, http_port).json("/status")
    if not isinstance(raw, dict):
        raise UnmetError(f"/status is no JSON object: {str(raw)[:80]}")
    return State(raw)


@dataclass(frozen=True)
class Place:
    """A store of the inventory and its node, as an adapter knows it."""

    node: Node
    store: Store

    @property
    def endpoint(self) -> str:
        """host:port as adapters connect: with TLS where they are told of an authority."""
        store = self.store
        return f"{store.host}:{store.tls_port}" if store.tls_ca and store.tls_port else store.address

    @property
    def label(self) -> str:
        """How a report names it."""
        return f"{self.store.address} ({self.store.drive} of {self.node.name})"


def places(cluster: Cluster) -> dict[str, Place]:
    """Every store of the site by the name that adapters give it."""
    found = (Place(node, store) for node in cluster.nodes for store in node.stores)
    return {place.endpoint: place for place in found}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
