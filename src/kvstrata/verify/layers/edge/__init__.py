"""The edge on a router host, as clients outside meet it: TLS, keys, nothing but the API, answers as they are made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kvstrata.cluster import Edge, EdgeListener
from kvstrata.verify import tls
from kvstrata.verify.check import Check, Json, NotCheckedError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.layers import certificate, endpoint
from kvstrata.verify.layers.edge import keys, stream
from kvstrata.verify.layers.edge.access import authority, service
from kvstrata.verify.layers.following import upon

# OpenSSL's words.
_UNKNOWN_ISSUER = "unable to get local issuer certificate"


def checks(ctx: NodeContext) -> Iterator[Check]:
    """Everything of the edge on this node; nothing where it has none."""
    edge, listener = ctx.cluster.edge, ctx.node.edge
    if edge is not None and listener is not None:
        yield from _Asked(ctx, edge, listener).all()


@dataclass
class _Asked(endpoint.Endpoint):
    edge: Edge
    listener: EdgeListener

    @property
    def name(self) -> str:
        return f"edge {self.listener.host}:{self.edge.port}"

    @property
    def url(self) -> str:
        return f"{'http' if self.edge.plaintext else 'https'}://{self.listener.host}:{self.edge.port}"

    def all(self) -> Iterator[Check]:
        journal = self.ctx.journal(self.listener.unit)
        health = self.ask(
            "edge.health",
            f"{self.name} health",
            "/health answers 200 without a key",
            journal,
            lambda: endpoint.health(service(self.ctx, self.edge, self.listener.host)),
        )
        yield health
        days = f"{self.ctx.cluster.verify.limits.certificate_days:g} days"
        numbers: dict[str, Json] = {}
        yield self.ask(
            "edge.certificate",
            f"{self.name} certificate",
            f"trusted by its clients, for {', '.join(self.edge.names) or 'a name'}, valid for {days} more",
            self.ctx.command(f"openssl s_client -connect {self.listener.host}:{self.edge.port} -showcerts"),
            lambda: self._certificate(numbers),
            numbers,
        )
        asked = self.ctx.command(f"curl -sik {self.url}/v1/models")
        expected = "401 without a key and with a wrong one, 200 with each key" if self.edge.keys else "open to anybody"
        yield self.ask(
            "edge.keys",
            f"{self.name} API keys",
            expected,
            asked,
            upon(health, lambda: keys.judge(service(self.ctx, self.edge, self.listener.host), self.edge)),
        )
        yield self.ask(
            "edge.closed",
            f"{self.name} what is not for clients",
            f"401, 403 or 404 for {', '.join(keys.PRIVATE)}",
            self.ctx.command(f"curl -sik {self.url}/workers"),
            upon(health, lambda: keys.closed(service(self.ctx, self.edge, self.listener.host, key=True))),
        )
        times: dict[str, Json] = {}
        yield self.ask(
            "edge.streaming",
            f"{self.name} streaming",
            "tokens arrive as they are made, as they do from the router",
            journal,
            upon(health, lambda: self._streaming(times)),
            times,
        )

    def _certificate(self, numbers: dict[str, Json]) -> str:
        if self.edge.plaintext:
            raise NotCheckedError("the edge has no TLS, as the inventory says: prompts, answers and keys can be read")
        client, limits = tls.trusting(authority(self.edge)), self.ctx.cluster.verify.limits
        at = (self.listener.host, self.edge.port)
        try:
            return certificate.judge(self.ctx.shell, *at, client, limits, numbers, self.edge.names)
        except UnmetError as unmet:
            if self.edge.ca is not None or _UNKNOWN_ISSUER not in str(unmet):
                raise
            seen = certificate.judge(self.ctx.shell, *at, None, limits, numbers)
            raise NotCheckedError(f"{seen}: that clients trust it; this machine does not know who signed it") from None

    def _streaming(self, times: dict[str, Json]) -> str:
        router = self.ctx.node.router
        if router is None:
            raise NotCheckedError("there is no router here to compare with")
        behind = self.ctx.service(router.host, router.port)
        through = service(self.ctx, self.edge, self.listener.host, key=True)
        return stream.compare(behind, through, self.ctx, times)
