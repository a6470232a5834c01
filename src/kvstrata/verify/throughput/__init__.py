"""throughput: how fast the site answers a stated load, against the inventory's bounds and the site's own baseline."""

from kvstrata.verify.throughput.layer import checks

__all__ = ["checks"]
