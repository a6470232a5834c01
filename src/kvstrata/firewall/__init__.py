"""Which connections to a node's internal ports are let in, as a table of nftables."""

from kvstrata.firewall.rules import Firewall, render

__all__ = ["Firewall", "render"]
