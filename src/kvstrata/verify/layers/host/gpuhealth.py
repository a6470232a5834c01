"""The reading of nvidia-smi, which lies with the modules that travel to nodes, importable on the controller."""

from __future__ import annotations

import ansible.module_utils

from kvstrata.paths import PROJECT

_FOLDER = str(PROJECT / "plugins" / "module_utils")
if _FOLDER not in ansible.module_utils.__path__:
    # As Ansible does it when it packs a module.
    ansible.module_utils.__path__.append(_FOLDER)

from ansible.module_utils import kvstrata_gpuhealth  # noqa: E402 - only now can it be found

__all__ = ["kvstrata_gpuhealth"]
