#!/usr/bin/python
"""Hold installed packages at their versions, and release only what was held by the same owner."""

from __future__ import annotations

import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kvstrata_packages import locked, matching, parse_dpkg, selections
from ansible.module_utils.kvstrata_text import place, read

DOCUMENTATION = """
module: kvstrata_hold
short_description: Hold installed packages at their versions
description: >-
  With apt by dpkg's selections, with dnf by a marked block in the list of the plugin versionlock. What is not installed
  is not held. A package that somebody else put on hold is left to them.
options:
  owner: {description: Who holds; each owner has a record of its own., type: str, required: true}
  packages:
    description: Shell patterns of package names; an empty list releases.
    type: list
    elements: str
    required: true
  manager: {description: The package manager., type: str, choices: [apt, dnf], required: true}
  records: {description: Folder of the records., type: path, default: /var/lib/kvstrata}
  versionlock: {description: The list of versionlock., type: path, default: /etc/dnf/plugins/versionlock.list}
"""

DPKG_FORMAT = "${binary:Package}\\t${db:Status-Want}\\t${db:Status-Status}\\n"
# An installed version as versionlock names it, NAME-EPOCH:VERSION-RELEASE.*
RPM_FORMAT = "%{NAME}\\t%{NAME}-%{EPOCHNUM}:%{VERSION}-%{RELEASE}.*\\n"


def hold_apt(module: AnsibleModule) -> dict[str, Any]:
    """Set and release holds of dpkg; return the module's result."""
    record = f"{module.params['records']}/holds-{module.params['owner']}.json"
    ours = json.loads(read(record) or "[]")
    _, out, _ = module.run_command(
        ["dpkg-query", "--show", f"--showformat={DPKG_FORMAT}"], check_rc=True, expand_user_and_vars=False
    )
    hold, release, kept = selections(parse_dpkg(out), module.params["packages"], ours)
    if not module.check_mode and (hold or release):
        lines = [f"{name} hold" for name in hold] + [f"{name} install" for name in release]
        module.run_command(["dpkg", "--set-selections"], data="\n".join(lines) + "\n", check_rc=True)
    if kept or read(record) is not None:
        place(module, record, json.dumps(kept, indent=1) + "\n", 0o644)
    diff = {"before": "".join(f"{name}\n" for name in release), "after": "".join(f"{name}\n" for name in hold)}
    return {"changed": bool(hold or release), "held": hold, "released": release, "diff": diff}


def hold_dnf(module: AnsibleModule) -> dict[str, Any]:
    """Write our block of versionlock's list; return the module's result."""
    path = module.params["versionlock"]
    _, out, _ = module.run_command(["rpm", "--query", "--all", f"--queryformat={RPM_FORMAT}"], check_rc=True)
    versions: dict[str, list[str]] = {}
    for line in out.splitlines():
        name, version = line.split("\t")
        versions.setdefault(name, []).append(version)
    names = matching(versions, module.params["packages"])
    text = read(path) or ""
    wanted = locked(text, module.params["owner"], sorted(each for name in names for each in versions[name]))
    # Without a list and with nothing to hold there is nothing to write.
    change = place(module, path, wanted, 0o644) if wanted != text else None
    before, after = text.splitlines(), wanted.splitlines()
    held, released = [line for line in after if line not in before], [line for line in before if line not in after]
    return {"changed": change is not None, "held": held, "released": released, "diff": change or {}}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "owner": {"type": "str", "required": True},
            "packages": {"type": "list", "elements": "str", "required": True},
            "manager": {"type": "str", "choices": ["apt", "dnf"], "required": True},
            "records": {"type": "path", "default": "/var/lib/kvstrata"},
            "versionlock": {"type": "path", "default": "/etc/dnf/plugins/versionlock.list"},
        },
        supports_check_mode=True,
    )
    module.exit_json(**(hold_apt(module) if module.params["manager"] == "apt" else hold_dnf(module)))


if __name__ == "__main__":
    main()
