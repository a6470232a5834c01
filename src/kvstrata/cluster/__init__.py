"""The typed model of one site: what runs where, as Ansible understood the inventory.

`describe` asks Ansible for it, `parse` and `load` read the JSON document it renders.
"""

from kvstrata.cluster.at import InvalidClusterError
from kvstrata.cluster.describe import DescribeError, describe
from kvstrata.cluster.load import load, parse
from kvstrata.cluster.model import (
    Cluster,
    LMCache,
    Model,
    Mount,
    Node,
    Ssh,
    Store,
    StoreEngine,
    Tier,
    TiersPolicy,
    VerifySettings,
)
from kvstrata.cluster.serving import (
    ApiKey,
    Edge,
    EdgeListener,
    Engine,
    EngineServer,
    Etcd,
    Firewall,
    Numa,
    Profile,
    Router,
    RouterKind,
)
from kvstrata.cluster.settings import Limits, Prices, ThroughputSettings

__all__ = [
    "ApiKey",
    "Cluster",
    "DescribeError",
    "Edge",
    "EdgeListener",
    "Engine",
    "EngineServer",
    "Etcd",
    "Firewall",
    "InvalidClusterError",
    "LMCache",
    "Limits",
    "Model",
    "Mount",
    "Node",
    "Numa",
    "Prices",
    "Profile",
    "Router",
    "RouterKind",
    "Ssh",
    "Store",
    "StoreEngine",
    "ThroughputSettings",
    "Tier",
    "TiersPolicy",
    "VerifySettings",
    "describe",
    "load",
    "parse",
]
