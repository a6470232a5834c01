"""What answers requests, from its part of the cluster's document."""

from __future__ import annotations

from kvstrata.cluster.at import At, path_of
from kvstrata.cluster.serving import (
    ApiKey,
    Edge,
    EdgeListener,
    Engine,
    EngineServer,
    Etcd,
    Firewall,
    Numa,
    Router,
    RouterKind,
)


def numa(at: At) -> Numa:
    """Where a service should run."""
    return Numa(
        policy=at["policy"].text(),
        node=at.get("node", None).optional(At.integer),
        cpus=at.get("cpus", None).optional(At.text),
    )


def engine(at: At) -> Engine:
    """A replica."""
    return Engine(
        unit=at["unit"].text(),
        host=at["host"].text(),
        port=at["port"].port(),
        gpus=tuple(at.get("gpus", []).each(At.integer)),
        numa=at.get("numa", None).optional(numa),
        server=at["server"].choice(EngineServer),
        rpc_port=at["rpc_port"].optional(At.port),
        event_port=at["event_port"].optional(At.port),
    )


def router(at: At) -> Router:
    """The endpoint on one host."""
    return Router(
        unit=at["unit"].text(),
        host=at["host"].text(),
        port=at["port"].port(),
        kind=at["kind"].choice(RouterKind),
        policy=at["policy"].text(),
        metrics_host=at["metrics_host"].text(),
        metrics_port=at["metrics_port"].port(),
    )


def edge_listener(at: At) -> EdgeListener:
    """The edge on one host."""
    return EdgeListener(unit=at["unit"].text(), host=at["host"].text(), vrrp_unit=at["vrrp_unit"].optional(At.text))


def edge(at: At) -> Edge:
    """The edge of the site."""
    return Edge(
        port=at["port"].port(),
        plaintext=at["plaintext"].flag(),
        ca=at["ca"].optional(path_of),
        names=tuple(at["names"].each(At.text)),
        keys=tuple(at["keys"].each(_key)),
        virtual_address=at["virtual_address"].optional(At.text),
    )


def _key(at: At) -> ApiKey:
    return ApiKey(name=at["name"].text(), value=at["value"].text())


def etcd(at: At) -> Etcd:
    """A member of the site's etcd."""
    return Etcd(
        unit=at["unit"].text(),
        host=at["host"].text(),
        port=at["port"].port(),
        ca=at["ca"].text(),
        certificate=at["certificate"].text(),
        key=at["key"].text(),
    )


def firewall(at: At) -> Firewall:
    """Who may reach the site's ports."""
    return Firewall(unit=at["unit"].text(), client_networks=tuple(at["client_networks"].each(At.text)))
