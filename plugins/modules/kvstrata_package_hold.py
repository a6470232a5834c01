#!/usr/bin/python
"""Put packages on hold, or take them off: apt-mark, or dnf's versionlock."""

from __future__ import annotations

import json

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kvstrata_gpupackages import OWN, VERSIONLOCK, is_locked
from ansible.module_utils.kvstrata_text import place, read

DOCUMENTATION = """
module: kvstrata_package_hold
short_description: Put packages on hold, or take them off
description:
  - What it put on hold is written down, for another one's hold is to be respected.
options:
  hold: {description: Packages to hold; those that are not installed are left out., type: list, elements: str}
  release: {description: Packages to let go., type: list, elements: str, default: []}
  version: {description: The version that they are held at; written down., type: str, default: ""}
  state_file: {description: Where it is written down., type: path, default: /etc/kvstrata/nvidia_driver.json}
"""


class Manager:
    """The node's package manager."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.apt = module.get_bin_path("apt-mark") is not None

    def held(self, names: list[str]) -> set[str]:
        """Return which of the packages are on hold."""
        if self.apt:
            return set(self._run(["apt-mark", "showhold"]).split()) & set(names)
        text = read("/" + VERSIONLOCK) or ""
        return {name for name in names if is_locked(name, text)}

    def installed(self, names: list[str]) -> list[str]:
        """Return which of the packages are installed."""
        query = ["dpkg-query", "--show", "--showformat", "${Status}"] if self.apt else ["rpm", "--query"]
        found = []
        for name in names:
            status, out, _ = self.module.run_command([*query, name])
            if status == 0 and (not self.apt or out.endswith(" installed")):
                found.append(name)
        return found

    def hold(self, names: list[str]) -> None:
        """Hold the packages at the version that they have."""
        self._run(["apt-mark", "hold", *names] if self.apt else ["dnf", "--assumeyes", "versionlock", "add", *names])

    def release(self, names: list[str]) -> None:
        """Let the packages go."""
        command = ["apt-mark", "unhold"] if self.apt else ["dnf", "--assumeyes", "versionlock", "delete"]
        self._run([*command, *names])

    def _run(self, command: list[str]) -> str:
        return str(self.module.run_command(command, check_rc=True)[1])


def write_down(module: AnsibleModule, version: str, holds: list[str]) -> bool:
    """Write what is on hold where the probe looks for it; return whether that changed."""
    text = json.dumps({"holds": sorted(holds), "version": version}, sort_keys=True) + "\n"
    return place(module, module.params["state_file"], text, 0o644) is not None


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "hold": {"type": "list", "elements": "str"},
            "release": {"type": "list", "elements": "str", "default": []},
            "version": {"type": "str", "default": ""},
            "state_file": {"type": "path", "default": "/" + OWN},
        },
        supports_check_mode=True,
    )
    manager = Manager(module)
    hold, release = module.params["hold"], module.params["release"]
    free = sorted(manager.held(release))
    if free and not module.check_mode:
        manager.release(free)
    changed, added = bool(free), []
    if hold is not None:
        present = manager.installed(hold)
        # Written first: should this end in between, the next run still knows whose hold it is.
        changed = write_down(module, module.params["version"], present) or changed
        added = sorted(set(present) - manager.held(present))
        if added and not module.check_mode:
            manager.hold(added)
    module.exit_json(changed=changed or bool(added), held=added, released=free)


if __name__ == "__main__":
    main()
