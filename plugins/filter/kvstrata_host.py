"""Filters of the role host, and of the units that are placed by its NUMA map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvstrata.host.placement import cache_directives, place_replicas, place_stores
from kvstrata.host.settings import sysctls
from kvstrata.host.units import units_to_change


class FilterModule:
    """What Ansible looks for in a filter plugin."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "kvstrata_sysctls": sysctls,
            "kvstrata_units_to_change": units_to_change,
            "kvstrata_place_stores": place_stores,
            "kvstrata_place_replicas": place_replicas,
            "kvstrata_cache_directives": cache_directives,
        }
