"""What listens where in a simulated site, as each of its nodes sees it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kvstrata.cluster import Engine, RouterKind
from tests.verify.simulated import dynamo, over_tls, web
from tests.verify.simulated.caches import Caches, Prefixes
from tests.verify.simulated.edge import FakeEdge
from tests.verify.simulated.inventory import AUTHORITY, CHUNK
from tests.verify.simulated.kvrocks import FakeStore
from tests.verify.simulated.kvrocks import over_tls as shows
from tests.verify.simulated.lmcache import FakeLMCache
from tests.verify.simulated.router import FakeRouter
from tests.verify.simulated.sshd import Dropped, Refused
from tests.verify.simulated.state import FakeSite, Machine
from tests.verify.simulated.vllm import FakeEngine
from tests.verify.simulated.web import Talk


async def _refuse(reader: Any, writer: Any) -> None:
    """Answer nothing, as etcd does to whoever shows no certificate."""
    await reader.readuntil(b"\r\n\r\n")


LOOPBACK = "127.0.0.1"
# Between two tokens of a stream.
PACE_S = 0.002


@dataclass
class Services:
    """The services of a site: on the fabric by address and port, on a node's loopback by its name and port."""

    machines: dict[str, Machine] = field(default_factory=dict)
    fabric: dict[tuple[str, int], Talk] = field(default_factory=dict)
    loopback: dict[tuple[str, int], Talk] = field(default_factory=dict)
    units: dict[Talk, tuple[Machine, str]] = field(default_factory=dict)
    """Which unit a service is of: one that is stopped listens no more."""

    def reach(self, node: str, host: str, port: int) -> Talk | Refused | Dropped:
        """What a node meets there."""
        local = host in (LOOPBACK, "localhost")
        found = self.loopback.get((node, port)) if local else self.fabric.get((host, port))
        if found is None:
            return Refused()
        machine, unit = self.units[found]
        return Refused() if unit in machine.stopped else found

    def of(self, machine: Machine, unit: str, talk: Talk) -> Talk:
        """A service of a unit."""
        self.units[talk] = machine, unit
        return talk


@dataclass(frozen=True)
class Shown:
    """The certificates that each node's store, edge and etcd show, and who signed those of stores and etcd."""

    stores: Mapping[str, ssl.SSLContext]
    authority: str
    edges: Mapping[str, ssl.SSLContext]
    etcds: Mapping[str, ssl.SSLContext]
    etcd_authority: str


def build(site: FakeSite, shown: Shown) -> Services:
    """The services of a site."""
    services, stored, cluster = Services(), Prefixes(CHUNK), site.cluster()
    engines: dict[str, FakeEngine] = {}
    workers: dict[str, tuple[Engine, FakeEngine]] = {}

    def unknown(what: str) -> None:
        site.unknown.append(what)

    for node in cluster.nodes:
        machine = Machine(site, cluster, node, site.nodes[node.name])
        services.machines[node.name] = machine
        machine.files[AUTHORITY] = lambda: shown.authority
        caches = Caches(CHUNK, stored)
        for store in node.stores:
            kvrocks = FakeStore(store, machine.state, unknown)
            services.fabric[store.host, store.port] = services.of(machine, store.unit, kvrocks.talk)
            if store.config_path is not None:
                machine.files[store.config_path] = kvrocks.rendered
            if store.tls_port is not None and node.name in shown.stores:
                services.fabric[store.host, store.tls_port] = services.of(
                    machine, store.unit, shows(shown.stores[node.name])
                )
        if node.lmcache is not None:
            lmcache = FakeLMCache(machine, caches)
            talk = web.serve(lmcache.routes(), unknown)
            services.loopback[node.name, node.lmcache.http_port] = services.of(machine, node.lmcache.unit, talk)
            machine.on_restart[node.lmcache.unit] = caches.restart
        for engine in node.engines:
            fake = FakeEngine(machine, engine, caches)
            engines[engine.url], workers[engine.url] = fake, (engine, fake)
            talk = web.serve(dynamo.status_routes(fake) if engine.of_dynamo else fake.routes(), unknown)
            services.fabric[engine.host, engine.port] = services.of(machine, engine.unit, talk)
            machine.on_restart[engine.unit] = fake.restart
        if node.etcd is not None:
            machine.files[node.etcd.ca] = lambda: shown.etcd_authority
            talk = over_tls.serve(shown.etcds[node.name], _refuse)
            services.fabric[node.etcd.host, node.etcd.port] = services.of(machine, node.etcd.unit, talk)
    for node in cluster.nodes:
        if node.router is not None:
            machine, unit = services.machines[node.name], node.router.unit
            router = (
                dynamo.FakeFrontend(site, workers, machine.state)
                if node.router.kind is RouterKind.DYNAMO
                else FakeRouter(site, engines, machine.state)
            )
            talk = web.serve(router.routes(), unknown, PACE_S)
            services.fabric[node.router.host, node.router.port] = services.of(machine, unit, talk)
            talk = web.serve(router.figures(), unknown)
            services.loopback[node.name, node.router.metrics_port] = services.of(machine, unit, talk)
            if node.edge is not None and cluster.edge is not None:
                inside = web.serve(FakeEdge(site, router).routes(), unknown, 0 if site.edge_holds_back else PACE_S)
                talk = over_tls.serve(shown.edges[node.name], inside)
                at = (node.edge.host, cluster.edge.port)
                services.fabric[at] = services.of(machine, node.edge.unit, talk)
                if cluster.edge.virtual_address is not None and machine.holds_address:
                    services.fabric[cluster.edge.virtual_address, cluster.edge.port] = services.fabric[at]
    return services
