#!/usr/bin/python
"""Look at drives and say what each is and every reason not to take it. Opens devices read-only; changes nothing."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kvstrata_guard import Drive, Host, judge, survey

DOCUMENTATION = """
module: kvstrata_drive_guard
short_description: Judge whether drives may be taken
description: >-
  Reads /sys, /proc and the drives themselves, read-only, and never fails for what it sees: C(drives) has the state of
  each (blank, own, wipe or refused), C(refusals) every reason with the token that would allow a wipe. docs/drives.md
  lists the reasons.
options:
  drives:
    description: >-
      All drives of the host: name, device or devices, serial or serials, size_gib, fstype, mount. Other keys are not
      looked at.
    type: list
    elements: dict
    required: true
  wipe_tokens: {description: "By drive, a token or a list of them.", type: dict, default: {}}
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "drives": {"type": "list", "elements": "dict", "required": True},
            "wipe_tokens": {"type": "dict", "default": {}, "no_log": False},
        },
        supports_check_mode=True,
    )
    for entry in module.params["drives"]:
        if "name" not in entry or ("device" in entry) == ("devices" in entry):
            module.fail_json(msg=f"a drive is {entry}; allowed: a name and either device or devices")
    drives = [Drive.read(entry) for entry in module.params["drives"]]
    verdict = judge(drives, survey(drives, Host()), module.params["wipe_tokens"])
    module.exit_json(changed=False, **verdict.as_dict())


if __name__ == "__main__":
    main()
