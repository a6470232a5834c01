"""A node of a site as a stack: its units run with other configurations while the benchmark lasts, then as before.

The node serves no clients meanwhile, though the router may still send it some; its stores are the site's, so what the
benchmark writes there may push out what the site has cached. Its own chunks are deleted at the end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import redis
import yaml

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving import cache_options, engine_options
from kvstrata.bench.serving.configurations import Accelerator, Configuration, refusal
from kvstrata.bench.serving.model import Counters, Endpoint, Json
from kvstrata.bench.serving.services import Services
from kvstrata.bench.serving.site_node import NodeUnits, Unit
from kvstrata.bench.serving.site_reach import SiteReach
from kvstrata.bench.serving.stack import Running
from kvstrata.cache import drop, reach
from kvstrata.cluster import Cluster, Node
from kvstrata.l2.names import namespace_of
from kvstrata.verify import wait

_STORE_S = 60.0


class SiteStack:
    """See Stack; a context manager, which gives the node back as it was."""

    def __init__(self, cluster: Cluster, node: Node, start_timeout_s: float, request_timeout_s: float = 600.0) -> None:
        """Change nothing yet.

        Raises:
            BenchError: the node has no engine.
        """
        if not node.engines:
            raise BenchError(f"--node {node.name} has no engine; allowed: one that has")
        self._cluster, self._node = cluster, node
        self._start_timeout_s, self._request_timeout_s = start_timeout_s, request_timeout_s
        self._reach = SiteReach(cluster, (node,))
        self._units = NodeUnits(self._reach.shells[node.name], node.name)
        self._services = Services([], None)
        self._namespaces: list[str] = []
        self._running: list[str] = []
        self._current: Running | None = None

    def __enter__(self) -> SiteStack:
        """Remove what an earlier run may have left."""
        if self._units.left_over():
            self._units.restore()
        return self

    def __exit__(self, *_: object) -> None:
        """Give everything back, then delete our chunks."""
        try:
            if self._namespaces or self._units.left_over():
                self._give_back()
        finally:
            self._services.close()
            self._reach.close()

    def describe(self) -> Mapping[str, Json]:
        """See Stack."""
        return {
            "kind": "site",
            "site": self._cluster.site,
            "node": self._node.name,
            "accelerator": self._accelerator,
            "model": {"name": self._cluster.model.name, "dtype": self._cluster.model.dtype},
            "stores": sum(len(node.stores) for node in self._cluster.nodes),
            # Load goes to one engine, so that is what an hour of it costs.
            "replicas": 1,
            "gpus": len(self._node.engines[0].gpus),
            "prices": prices(self._cluster),
            "nodes": {self._node.name: self._units.facts()},
        }

    def refuses(self, configuration: Configuration) -> str | None:
        """See Stack."""
        if configuration.stores in ("resp", "redis-py"):
            return "its client would fill the site's stores with keys that nothing bounds; measure it with --dir"
        if configuration.stores == "kvstrata" and not any(node.stores for node in self._cluster.nodes):
            return "the site has no store"
        if configuration.cache == "lmcache" and self._node.lmcache is None:
            return f"{self._node.name} has no LMCache"
        block = configuration.engine.get("block-size")
        return refusal(configuration, self._accelerator, block if isinstance(block, int) else None)

    def start(self, configuration: Configuration) -> Running:
        """See Stack."""
        began = time.monotonic()
        self._services.close()
        self._units.stop(self._all_units())
        given = self._configure(configuration)
        self._running = [unit for unit in self._all_units() if unit in given]
        self._units.start(self._running)
        cache = self._node.lmcache if configuration.cache == "lmcache" else None
        self._services = Services(
            [self._reach.url(self._node.name, engine.host, engine.port) for engine in self._node.engines],
            self._reach.url(self._node.name, "127.0.0.1", cache.http_port) if cache else None,
            lambda: self._units.used(self._all_units() + [store.unit for store in self._node.stores]),
            external=configuration.cache == "native",
            gpus=self._reach.gpu_sampler(self._node.name),
        )
        self._await_health(given)
        endpoint, note = self._reach.endpoint(self._node.name, self._node.engines[0].host, self._node.engines[0].port)
        notes = [note] if note else []
        if len(self._node.engines) > 1:
            notes.append(f"only the first of {len(self._node.engines)} replicas of {self._node.name} is loaded")
        self._current = Running(
            configuration=configuration,
            endpoint=Endpoint(endpoint, self._cluster.model.name, self._request_timeout_s),
            start_s=time.monotonic() - began,
            options=given,
            direct=(endpoint,),
            notes=tuple(notes),
        )
        return self._current

    def begin(self) -> Counters:
        """See Stack."""
        return self._services.begin(self._reach.infos)

    def end(self) -> Counters:
        """See Stack."""
        return self._services.end(self._reach.infos)

    def settle(self, timeout_s: float) -> str | None:
        """See Stack."""
        return self._services.settle(timeout_s)

    def forget_memory(self) -> str | None:
        """See Stack."""
        return "what the stores hold was left in their hosts' page cache: loads may not have come from the drives"

    def clear_engines(self) -> None:
        """See Stack."""
        self._services.clear_engines(external=False)

    def clear(self) -> Running:
        """Empty engines and LMCache's memory, and delete our chunks from the stores."""
        assert self._current is not None  # noqa: S101 - nothing to clear before a start
        self._services.clear()
        self._drop(keep=self._namespaces[-1:])
        return self._current

    def alive(self) -> str | None:
        """See Stack."""
        for unit in self._running:
            if (state := self._units.state(unit)) != "active/running":
                return f"{unit} is {state}; the end of its journal:\n{self._units.journal(unit)}"
        return None

    def stop(self) -> None:
        """Nothing: the next start replaces what runs, and leaving the stack gives the node back."""

    @property
    def _accelerator(self) -> Accelerator:
        return "cuda" if self._node.gpus else "cpu"

    def _all_units(self) -> list[str]:
        cache = [self._node.lmcache.unit] if self._node.lmcache else []
        return cache + [engine.unit for engine in self._node.engines]

    def _configure(self, configuration: Configuration) -> dict[str, Json]:
        """Write the drop-ins; return what each unit that is to run was given."""
        given: dict[str, Json] = {}
        units = []
        if configuration.cache == "lmcache" and self._node.lmcache is not None:
            server = self._cache_server(configuration)
            units.append(Unit(self._node.lmcache.unit, "lmcache.json", json.dumps(server), {}))
            given[self._node.lmcache.unit] = server
        for number, engine in enumerate(self._node.engines):
            options = self._units.engine_options(engine.unit.partition("@")[2].removesuffix(".service"))
            options = engine_file(options, configuration)
            environment: dict[str, str | None] = {**engine_options.environment_changes(configuration)}
            # It would win over the option.
            if configuration.hbm_gib is not None and self._accelerator == "cpu":
                environment["VLLM_CPU_KVCACHE_SPACE"] = None
            units.append(Unit(engine.unit, f"vllm-{number}.yaml", yaml.safe_dump(options), environment))
            given[engine.unit] = {"options": options, "environment": dict(environment)}
        self._units.change(units)
        return given

    def _cache_server(self, configuration: Configuration) -> dict[str, Json]:
        deployed = self._units.cache_server()
        identity: dict[str, Json] = {"bench": time.time_ns(), "model": self._cluster.model.name}
        namespace = namespace_of(identity)
        if configuration.stores == "kvstrata":
            self._namespaces.append(namespace)
        return cache_file(deployed, configuration, namespace, identity)

    def _await_health(self, given: Mapping[str, Json]) -> None:
        for unit, url in self._health(given):
            if wait.until(_answers(self._services, url), self._start_timeout_s) is None:
                raise BenchError(
                    f"{self._node.name}: {unit} was not healthy within {self._start_timeout_s:g} s; the end of its "
                    f"journal:\n{self._units.journal(unit)}"
                )

    def _health(self, units: Mapping[str, Json]) -> list[tuple[str, str]]:
        found = []
        if self._node.lmcache is not None and self._node.lmcache.unit in units:
            port = self._node.lmcache.http_port
            found.append(
                (self._node.lmcache.unit, self._reach.url(self._node.name, "127.0.0.1", port) + "/healthcheck")
            )
        for engine in self._node.engines:
            found.append((engine.unit, self._reach.url(self._node.name, engine.host, engine.port) + "/health"))
        return found

    def _give_back(self) -> None:
        units = self._all_units()
        self._units.restore()
        self._units.stop(units)
        self._units.start(units)
        # Chunks of units that still run would be written again.
        self._drop()
        self._services.close()
        self._services = Services([], None)
        self._await_health(dict.fromkeys(units))

    def _drop(self, keep: list[str] | None = None) -> None:
        for namespace in self._namespaces:

            def delete(client: redis.Redis, namespace: str = namespace) -> None:
                drop.drop(client, namespace, lambda _chunks, _bytes: None, namespace in (keep or []))

            for answer in reach.ask(self._cluster, self._reach.store_shells, delete, _STORE_S):
                if answer.error:
                    raise BenchError(
                        f"{answer.place.node}: {answer.place.store.drive}: {answer.error}; what is left there: "
                        f"kvstrata cache drop {namespace}"
                    )
        self._namespaces = list(keep or [])


def prices(cluster: Cluster) -> Json:
    """Return the inventory's prices, None without any."""
    return None if cluster.prices is None else dict(asdict(cluster.prices))


def engine_file(deployed: Mapping[str, Json], configuration: Configuration) -> dict[str, Json]:
    """Return the options of an engine as they are deployed, changed to a configuration."""
    options = dict(deployed)
    if configuration.cache != "lmcache":
        options.pop("kv-transfer-config", None)
    elif "kv-transfer-config" in options:
        options["kv-transfer-config"] = engine_options.asking(options["kv-transfer-config"], configuration)
    return options | engine_options.changes(configuration)


def cache_file(
    deployed: Mapping[str, Any], configuration: Configuration, namespace: str, identity: Mapping[str, Json]
) -> dict[str, Json]:
    """Return LMCache's server.json as it is deployed, changed to a configuration.

    Raises:
        BenchError: the configuration needs stores, and none are deployed.
    """
    flags = {
        **deployed["flags"],
        "--l1-size-gb": configuration.l1_gib,
        "--chunk-size": configuration.chunk_tokens,
    }
    if configuration.stores == "none":
        return {"flags": flags, "l2": None}
    if not deployed.get("l2"):
        raise BenchError("LMCache is deployed without stores: nothing to measure an SSD tier with")
    own = cache_options.l2_changes(configuration) | {"namespace": namespace, "identity": dict(identity)}
    return {"flags": flags, "l2": {**deployed["l2"], **own}}


def _answers(services: Services, url: str) -> Callable[[], bool | None]:
    return lambda: True if services.answers(url) else None
