"""What answers requests: engines, routers, the edge, and what Dynamo needs beside them. Plain frozen data."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Profile(StrEnum):
    """What serves the site's endpoint (`kvstrata_serving_profile`)."""

    ROUTER = "router"
    DYNAMO = "dynamo"


class EngineServer(StrEnum):
    """What an engine's unit runs: what answers at its port, and who asks it."""

    OPENAI = "openai"
    """`vllm serve`: the OpenAI API, `/health` and `/metrics`."""
    DYNAMO = "dynamo"
    """A worker of Dynamo around the same engine: a status server alone, requests come through a frontend."""
    MOCKER = "mocker"
    """A worker of Dynamo without a model, for tests without a GPU."""


class RouterKind(StrEnum):
    """The program behind a site's endpoint."""

    VLLM_ROUTER = "vllm-router"
    DYNAMO = "dynamo-frontend"


@dataclass(frozen=True)
class Numa:
    """Where the inventory wants a service to run; what it does not say follows from the host's NUMA map."""

    policy: str
    """A NUMAPolicy of systemd, or `none` for no placement by the roles."""
    node: int | None = None
    cpus: str | None = None
    """CPUs as the kernel lists them, "0-3,8"."""


@dataclass(frozen=True)
class Engine:
    """One replica of the model, on the fabric address. `gpus` are the indices that nvidia-smi gives them."""

    unit: str
    host: str
    port: int
    gpus: tuple[int, ...] = ()
    numa: Numa | None = None
    server: EngineServer = EngineServer.OPENAI
    rpc_port: int | None = None
    """Where a worker of Dynamo takes requests from frontends."""
    event_port: int | None = None
    """Where it tells what enters and leaves its own cache, where it does."""

    @property
    def url(self) -> str:
        """What answers at its port, without a trailing slash: the OpenAI API, or the status server of a worker."""
        return f"http://{self.host}:{self.port}"

    @property
    def has_model(self) -> bool:
        """Whether it computes anything: a mocker only pretends, and has no cache either."""
        return self.server is not EngineServer.MOCKER

    @property
    def of_dynamo(self) -> bool:
        """Whether requests reach it through a frontend alone."""
        return self.server is not EngineServer.OPENAI


@dataclass(frozen=True)
class Router:
    """The endpoint of the site on one of its router hosts, on the fabric address.

    `metrics_host` and `metrics_port` are where Prometheus finds its figures, as its node sees them.
    """

    unit: str
    host: str
    port: int
    kind: RouterKind = RouterKind.VLLM_ROUTER
    policy: str = "cache_aware"
    """How it chooses a replica: `router_policy` of vllm-router, the router mode of a frontend."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9100

    @property
    def url(self) -> str:
        """The base of the OpenAI API, without a trailing slash."""
        return f"http://{self.host}:{self.port}"


@dataclass(frozen=True)
class EdgeListener:
    """The edge on one router host."""

    unit: str
    host: str
    vrrp_unit: str | None = None
    """What holds the virtual address there, where the site has one."""


@dataclass(frozen=True)
class ApiKey:
    """A key that clients show as `Authorization: Bearer`, by its name in the inventory."""

    name: str
    value: str = field(repr=False)


@dataclass(frozen=True)
class Edge:
    """What clients outside reach: the same port on every router host (`kvstrata_edge`)."""

    port: int
    plaintext: bool
    """No TLS, because the inventory says so."""
    ca: Path | None
    """The authority that signed the certificate, a file on the controller; None: those that the controller trusts."""
    names: tuple[str, ...]
    """What clients call it, so that the certificate must have these names; empty where nobody said."""
    keys: tuple[ApiKey, ...]
    """Empty where anybody may ask."""
    virtual_address: str | None
    """Without its prefix length; it is held by one router host at a time."""


@dataclass(frozen=True)
class Etcd:
    """A member of the site's etcd, on the fabric address; clients show a certificate. Files are on the node."""

    unit: str
    host: str
    port: int
    ca: str
    certificate: str
    key: str

    @property
    def url(self) -> str:
        """Where clients ask it."""
        return f"https://{self.host}:{self.port}"


@dataclass(frozen=True)
class Firewall:
    """Who may open connections to the site's internal ports, beside its nodes; networks in CIDR form."""

    unit: str
    client_networks: tuple[str, ...]
    """These may reach the routers: 0.0.0.0/0 where everybody may."""
