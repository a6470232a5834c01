"""What a site consists of. Plain frozen data; reading it from JSON is in `load`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from kvstrata.cluster.serving import Edge, EdgeListener, Engine, Etcd, Firewall, Numa, Profile, Router
from kvstrata.cluster.settings import Limits, Prices, ThroughputSettings


class StoreEngine(StrEnum):
    """The server program behind a store."""

    KVROCKS = "kvrocks"
    REDIS = "redis"


class Tier(StrEnum):
    """Where a store keeps its values."""

    SSD = "ssd"
    DRAM = "dram"


class TiersPolicy(StrEnum):
    """When the proof of the tiers, which restarts services, may run."""

    IF_CHANGED = "if_changed"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True)
class Ssh:
    """How the controller reaches a node. `key` and `known_hosts` of None mean the user's own."""

    host: str
    port: int
    user: str
    key: Path | None
    known_hosts: Path | None
    become: bool


@dataclass(frozen=True)
class Mount:
    """A file system that must be mounted from a block device.

    `device` is the drive by the inventory's name below /dev/disk/by-id/; of a RAID0 `devices` names them all.
    """

    path: str
    fstype: str
    device: str | None = None
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Store:
    """One server of the store, one per drive, on the fabric address."""

    drive: str
    unit: str
    engine: StoreEngine
    host: str
    port: int
    # Not part of repr, so that no log, traceback or report can show it.
    password: str = field(repr=False)
    tier: Tier
    # The most that its chunks may take together, of all namespaces.
    capacity_bytes: int
    # Its configuration as the role rendered it, on its node.
    config_path: str | None = None
    tls_port: int | None = None
    # The certificate authority that clients trust, a file on the nodes.
    tls_ca: str | None = None
    # None in a document that does not say.
    numa: Numa | None = None

    @property
    def address(self) -> str:
        """The address as host:port."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class LMCache:
    """A node's cache server; both ports are on loopback. `chunk_size` is in tokens.

    `namespace` is what its chunks are filed under on the stores (kvstrata.l2.names); None where the inventory's
    wheelhouse is not locked, so that nothing can have been deployed from it.
    """

    unit: str
    zmq_port: int
    http_port: int
    chunk_size: int
    namespace: str | None
    l1_gib: float | None = None
    """Its DRAM tier; None in a document that does not say."""
    min_load_gbps: float = 0.0
    policy: Mapping[str, Any] = field(default_factory=lambda: {"name": "all"})
    """What it writes to the stores."""
    numa: Numa | None = None


@dataclass(frozen=True)
class Model:
    """The model served. `max_model_len` is in tokens, `revision` identifies the weights."""

    name: str
    path: str
    max_model_len: int
    dtype: str
    kv_dtype: str = "auto"
    tensor_parallel: int = 1
    revision: str = ""


@dataclass(frozen=True)
class Node:
    """One machine and what the inventory puts on it."""

    name: str
    ssh: Ssh
    units: tuple[str, ...]
    mounts: tuple[Mount, ...]
    stores: tuple[Store, ...]
    lmcache: LMCache | None
    engines: tuple[Engine, ...]
    router: Router | None
    gpus: int = 0
    edge: EdgeListener | None = None
    etcd: Etcd | None = None

    @property
    def fabric_host(self) -> str:
        """The address other nodes use, or the SSH address where nothing listens on a fabric."""
        listeners = (*self.stores, *self.engines, *((self.router,) if self.router else ()))
        return next((listener.host for listener in listeners), self.ssh.host)


@dataclass(frozen=True)
class VerifySettings:
    """The site's choices for verification. `timeout_s` is in seconds, `prompt_tokens` in tokens."""

    tiers: TiersPolicy
    prompt_tokens: int
    timeout_s: float
    state_dir: Path
    limits: Limits = field(default_factory=Limits)
    throughput: ThroughputSettings = field(default_factory=ThroughputSettings)


@dataclass(frozen=True)
class Cluster:
    """A whole site."""

    site: str
    profile: Profile
    accelerator: str
    """`cuda` or `cpu`."""
    model: Model
    nodes: tuple[Node, ...]
    verify: VerifySettings
    prices: Prices | None = None
    edge: Edge | None = None
    firewall: Firewall | None = None

    def node(self, name: str) -> Node:
        """The node of that name; KeyError when there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces that its nodes use, each once: one, unless nodes differ in what they serve."""
        found = (node.lmcache.namespace for node in self.nodes if node.lmcache)
        return tuple(dict.fromkeys(namespace for namespace in found if namespace))

    @property
    def engines(self) -> tuple[Engine, ...]:
        """Every replica of the site, in inventory order."""
        return tuple(engine for node in self.nodes for engine in node.engines)

    @property
    def routers(self) -> tuple[Router, ...]:
        """The endpoint on every router host, in inventory order."""
        return tuple(node.router for node in self.nodes if node.router is not None)
