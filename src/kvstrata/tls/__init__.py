"""Certificates that the controller makes: an authority of a site's own, and what it signs."""

from kvstrata.tls.authority import Issued, Terms, ensure
from kvstrata.tls.pair import Pair, PairError

__all__ = ["Issued", "Pair", "PairError", "Terms", "ensure"]
