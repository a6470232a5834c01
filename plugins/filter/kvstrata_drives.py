"""Filters over what is known of a host's drives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvstrata.drives.discovered import block
from kvstrata.drives.rules import kernel_names, udev_rules


class FilterModule:
    """What Ansible looks for in a filter plugin."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "kvstrata_drives_block": block,
            "kvstrata_drives_kernel_names": kernel_names,
            "kvstrata_drives_udev_rules": udev_rules,
        }
