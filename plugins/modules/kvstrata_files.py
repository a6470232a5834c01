#!/usr/bin/python
"""Place or remove several small text files in one task."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kvstrata_text import place, remove

DOCUMENTATION = """
module: kvstrata_files
short_description: Place or remove several small text files in one task
description: >-
  As C(ansible.builtin.copy) with C(content) in a loop, for one connection instead of two for each file. Folders are
  made where they are missing. C(changed_paths) names what was placed or removed.
options:
  files:
    description: The files, in the order in which they are placed.
    type: list
    elements: dict
    required: true
    suboptions:
      path: {description: Absolute path., type: path, required: true}
      content: {description: The whole text. An empty one removes the file; without one it is left alone., type: str}
      mode: {description: Permissions., type: str, default: "0644"}
"""

SPEC = {
    "path": {"type": "path", "required": True},
    "content": {"type": "str"},
    "mode": {"type": "str", "default": "0644"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"files": {"type": "list", "elements": "dict", "required": True, "options": SPEC}},
        supports_check_mode=True,
    )
    changes = {}
    for file in module.params["files"]:
        if not file["path"].startswith("/"):
            module.fail_json(msg=f"files[].path is {file['path']!r}; allowed: an absolute path")
        if file["content"] is None:
            continue
        if file["content"]:
            change = place(module, file["path"], file["content"], int(file["mode"], 8))
        else:
            change = remove(module, file["path"])
        if change is not None:
            changes[file["path"]] = change
    module.exit_json(changed=bool(changes), changed_paths=sorted(changes), diff=list(changes.values()))


if __name__ == "__main__":
    main()
