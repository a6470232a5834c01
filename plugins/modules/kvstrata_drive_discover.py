#!/usr/bin/python
"""Find the NVMe drives of a host and judge each as the inventory would have it. Reads only; changes nothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kvstrata_blockhost import Host
from ansible.module_utils.kvstrata_discovery import discover
from ansible.module_utils.kvstrata_guard import judge

DOCUMENTATION = """
module: kvstrata_drive_discover
short_description: Find the NVMe drives of a host
description: >-
  Returns C(drives), one for each NVMe namespace by its best name below /dev/disk/by-id, and one for each array of
  kvstrata, with what the guard says of it. Names of drives are those of their file systems where these are ours.
options:
  mounts: {description: Folder in which drives are mounted., type: path, default: /var/lib/kvstrata/drives}
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"mounts": {"type": "path", "default": "/var/lib/kvstrata/drives"}}, supports_check_mode=True
    )
    drives, seen = discover(Host(), module.params["mounts"])
    verdict = judge(drives, seen, {})
    found: list[dict[str, Any]] = []
    for drive in drives:
        refusals = [asdict(refusal) for refusal in verdict.refusals if refusal.drive == drive.name]
        found.append({**asdict(verdict.drives[drive.name]), "array": drive.array, "refusals": refusals})
    module.exit_json(changed=False, drives=found)


if __name__ == "__main__":
    main()
