"""The guard's code, which lies with the modules that travel to nodes, importable on the controller."""

from __future__ import annotations

import ansible.module_utils

from kvstrata.paths import PROJECT

_FOLDER = str(PROJECT / "plugins" / "module_utils")
if _FOLDER not in ansible.module_utils.__path__:
    # As Ansible does it when it packs a module.
    ansible.module_utils.__path__.append(_FOLDER)

from ansible.module_utils import (  # noqa: E402 - only now can they be found
    kvstrata_blockcontent,
    kvstrata_blockdev,
    kvstrata_blockhost,
    kvstrata_blocktables,
    kvstrata_blockuse,
    kvstrata_guard,
    kvstrata_reasons,
)

__all__ = [
    "kvstrata_blockcontent",
    "kvstrata_blockdev",
    "kvstrata_blockhost",
    "kvstrata_blocktables",
    "kvstrata_blockuse",
    "kvstrata_guard",
    "kvstrata_reasons",
]
