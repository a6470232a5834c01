"""The typed model of one site: what runs where, as Ansible understood the inventory.

`describe` asks Ansible for it, `parse` and `load` read the JSON document it renders.
"""

from kvstrata.cluster.describe import DescribeError, describe
from kvstrata.cluster.load import InvalidClusterError, load, parse
from kvstrata.cluster.model import (
    Cluster,
    Engine,
    LMCache,
    Model,
    Mount,
    Node,
    Numa,
    Router,
    Ssh,
    Store,
    StoreEngine,
    Tier,
    TiersPolicy,
    VerifySettings,
)
from kvstrata.cluster.settings import Limits, Prices, ThroughputSettings

__all__ = [
    "Cluster",
    "DescribeError",
    "Engine",
    "InvalidClusterError",
    "LMCache",
    "Limits",
    "Model",
    "Mount",
    "Node",
    "Numa",
    "Prices",
    "Router",
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
