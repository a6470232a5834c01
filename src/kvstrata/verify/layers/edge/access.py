"""The way to an edge."""

from __future__ import annotations

from kvstrata.cluster import Edge
from kvstrata.verify import tls
from kvstrata.verify.check import UnableError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.http import Service

TIMEOUT_S = 10


def service(ctx: NodeContext, edge: Edge, host: str, *, key: bool = False) -> Service:
    """The edge at `host` as the node of `ctx` sees it, with the first API key or none.

    Any certificate will do: its own check judges it, and a bad one must not hide what else is wrong. Keys go to an
    address of the site, over SSH to one of its nodes, and to nobody else.
    """
    context = None if edge.plaintext else tls.believing()
    headers = authorization(edge.keys[0].value) if key and edge.keys else None
    return Service(ctx.shell, host, edge.port, min(TIMEOUT_S, ctx.timeout_s), context, headers)


def authorization(key: str) -> dict[str, str]:
    """The header that shows a key."""
    return {"authorization": f"Bearer {key}"}


def authority(edge: Edge) -> str | None:
    """Who signed the edge's certificate, as PEM; None: whom this machine trusts. UnableError when it cannot be read."""
    if edge.ca is None:
        return None
    try:
        return edge.ca.read_text()
    except OSError as error:
        raise UnableError(f"{edge.ca}: {error.strerror}") from error
