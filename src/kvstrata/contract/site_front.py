"""How requests reach what a site has in front of its engines, over SSH to a router host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kvstrata.cluster import Cluster
from kvstrata.contract.client import Front
from kvstrata.verify import tls
from kvstrata.verify.context import NodeContext
from kvstrata.verify.layers.edge.access import authority, authorization

type WorkerOf = Callable[[Mapping[str, Any]], str | None]

# A frontend of Dynamo then tells which worker answered.
_MORE: Mapping[str, Any] = {"nvext": {"extra_fields": ["worker_id"]}}


def straight(cluster: Cluster, ports: Sequence[int], worker_of: WorkerOf, *, dynamo: bool) -> Front:
    """Return the front of routers whose tunnels end at these ports of this machine; the second stands in for the first.

    Args:
        cluster: whose model is asked for.
        ports: one or more.
        worker_of: reads who answered from an answer.
        dynamo: whether they are frontends of Dynamo.
    """
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    return Front(
        urls[0], cluster.model.name, worker_of, _MORE if dynamo else {}, backup=urls[1] if len(urls) > 1 else None
    )


def through_edge(cluster: Cluster, hosts: Sequence[NodeContext], worker_of: WorkerOf, *, dynamo: bool) -> Front:
    """Return the front of the first host's edge: with the first API key, and its certificate judged by its own name.

    Raises:
        ValueError: the site has no edge.
        UnableError, UnmetError: the authority of its certificate cannot be read.
    """
    edge = cluster.edge
    ctx = next((ctx for ctx in hosts if ctx.node.edge is not None), None)
    if edge is None or ctx is None or ctx.node.edge is None:
        raise ValueError("the site has no edge")
    host = ctx.node.edge.host
    port = ctx.shell.tunnel(host, edge.port).port
    headers = {"Host": f"{host}:{edge.port}"} | (authorization(edge.keys[0].value) if edge.keys else {})
    return Front(
        f"{'http' if edge.plaintext else 'https'}://127.0.0.1:{port}",
        cluster.model.name,
        worker_of,
        _MORE if dynamo else {},
        headers=headers,
        tls=None if edge.plaintext else tls.trusting(authority(edge)),
        server_name=None if edge.plaintext else next(iter(edge.names), host),
    )
