#!/usr/bin/python
"""Write the NUMA map of the machine as a local fact."""

from __future__ import annotations

import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kvstrata_text import place, remove
from ansible.module_utils.kvstrata_topology import EMPTY, topology

DOCUMENTATION = """
module: kvstrata_numa
short_description: Write the NUMA map of GPUs, NVMe drives and NICs as a local fact
description: >-
  Reads /sys and the links of /dev/disk/by-id. The map is returned as the fact C(kvstrata_numa) as well, for a play that
  gathered its facts before the file was there.
options:
  path: {description: File of the fact., type: path, required: true}
  container:
    description: Whether the machine is a container; what it sees in /sys is its host's, so its map is empty.
    type: bool
    default: false
  state:
    description: C(absent) removes the file, and returns a map with nothing in it.
    type: str
    choices: [present, absent]
    default: present
  sys: {description: Where sysfs is., type: path, default: /sys}
  dev: {description: Where the device files are., type: path, default: /dev}
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "container": {"type": "bool", "default": False},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "sys": {"type": "path", "default": "/sys"},
            "dev": {"type": "path", "default": "/dev"},
        },
        supports_check_mode=True,
    )
    given: dict[str, Any] = module.params
    if given["state"] == "absent":
        found, change = EMPTY, remove(module, given["path"])
    else:
        found = {**EMPTY, "container": True} if given["container"] else topology(given["sys"], given["dev"])
        change = place(module, given["path"], json.dumps(found, indent=1, sort_keys=True) + "\n", 0o644)
    module.exit_json(changed=change is not None, diff=change or {}, ansible_facts={"kvstrata_numa": found}, numa=found)


if __name__ == "__main__":
    main()
