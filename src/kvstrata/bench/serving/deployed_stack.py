"""A site as it is deployed, measured through its router: nothing is started, emptied or changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.configurations import Configuration
from kvstrata.bench.serving.model import Counters, Endpoint, Json
from kvstrata.bench.serving.services import Services, store_readings
from kvstrata.bench.serving.site_node import NodeUnits
from kvstrata.bench.serving.site_reach import SiteReach
from kvstrata.bench.serving.site_stack import prices
from kvstrata.bench.serving.stack import Running
from kvstrata.cluster import Cluster, Node

NAME = "deployed"


class DeployedStack:
    """See Stack; a context manager. It has one configuration, `deployed`."""

    def __init__(self, cluster: Cluster, request_timeout_s: float = 600.0) -> None:
        """Contact nothing yet.

        Raises:
            BenchError: the site has no engine, or several and no router.
        """
        self._nodes = [node for node in cluster.nodes if node.engines or node.router]
        engines = cluster.engines
        self._front = next(((node, node.router) for node in self._nodes if node.router), None)
        if not engines or (self._front is None and len(engines) > 1):
            raise BenchError(f"site {cluster.site} has no router and {len(engines)} engines: nothing to send to")
        self._cluster, self._request_timeout_s = cluster, request_timeout_s
        self._reach = SiteReach(cluster, self._nodes)
        self._services: dict[str, Services] = {}
        self._current: Running | None = None

    def __enter__(self) -> DeployedStack:
        """Contact nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        for services in self._services.values():
            services.close()
        self._reach.close()

    def describe(self) -> Mapping[str, Json]:
        """See Stack."""
        return {
            "kind": "deployed",
            "site": self._cluster.site,
            "accelerator": "cuda" if any(node.gpus for node in self._nodes) else "cpu",
            "model": {"name": self._cluster.model.name, "dtype": self._cluster.model.dtype},
            "stores": sum(len(node.stores) for node in self._cluster.nodes),
            "replicas": len(self._cluster.engines),
            "router_policy": self._front[1].policy if self._front and self._front[1] else None,
            "gpus": sum(len(engine.gpus) for engine in self._cluster.engines),
            "prices": prices(self._cluster),
            "nodes": {node.name: NodeUnits(self._reach.shells[node.name], node.name).facts() for node in self._nodes},
        }

    def refuses(self, configuration: Configuration) -> str | None:
        """See Stack."""
        return None if configuration.name == NAME else "a site is measured as it is deployed, or on one --node"

    def start(self, configuration: Configuration) -> Running:
        """Find everything; nothing is started."""
        for node in self._nodes:
            self._services.setdefault(node.name, self._of(node))
        node, router = self._front or (self._nodes[0], None)
        host, port = (router.host, router.port) if router else (node.engines[0].host, node.engines[0].port)
        url, note = self._reach.endpoint(node.name, host, port)
        self._current = Running(
            configuration=configuration,
            endpoint=Endpoint(url, self._cluster.model.name, self._request_timeout_s),
            start_s=0.0,
            notes=(note,) if note else (),
        )
        return self._current

    def begin(self) -> Counters:
        """See Stack; engines, LMCache and processes of all nodes, each named with its node."""
        return self._all([services.begin() for services in self._services.values()])

    def end(self) -> Counters:
        """See Stack."""
        return self._all([services.end() for services in self._services.values()])

    def settle(self, timeout_s: float) -> str | None:
        """See Stack."""
        notes = (services.settle(timeout_s) for services in self._services.values())
        return next((note for note in notes if note), None)

    def forget_memory(self) -> str | None:
        """See Stack."""
        return None

    def clear_engines(self) -> None:
        """Refuse: a deployed engine cannot be emptied."""
        raise BenchError("a deployed engine is not emptied")

    def clear(self) -> Running:
        """Empty nothing: every workload and every round has prompts of its own."""
        assert self._current is not None  # noqa: S101 - nothing to clear before a start
        return self._current

    def alive(self) -> str | None:
        """See Stack."""
        return None

    def stop(self) -> None:
        """See Stack; nothing was started."""

    def _of(self, node: Node) -> Services:
        units = [engine.unit for engine in node.engines] + [store.unit for store in node.stores]
        units += [node.lmcache.unit] if node.lmcache else []
        units += [node.router.unit] if node.router else []
        acting = NodeUnits(self._reach.shells[node.name], node.name)
        return Services(
            [self._reach.url(node.name, engine.host, engine.port) for engine in node.engines],
            self._reach.url(node.name, "127.0.0.1", node.lmcache.http_port) if node.lmcache else None,
            lambda: acting.used(units),
            gpus=self._reach.gpu_sampler(node.name),
        )

    def _all(self, readings: Sequence[Counters]) -> Counters:
        found = merged(dict(zip(self._services, readings, strict=True)))
        return {**found, **store_readings(self._reach.infos())}


def merged(by_node: Mapping[str, Counters]) -> dict[str, Mapping[str, float]]:
    """Return the counters of several nodes as one: `vllm:N@NODE`, `lmcache` and `l2` summed, the rest `...@NODE`.

    Gauges of LMCache and kvstrata.l2 are summed as well, as shares of the site.
    """
    found: dict[str, dict[str, float]] = {}
    for node, counters in by_node.items():
        for source, values in counters.items():
            whole = source in ("lmcache", "l2")
            into = found.setdefault(source if whole else f"{source}@{node}", {})
            for name, value in values.items():
                into[name] = into.get(name, 0.0) + value
    return dict(found)
