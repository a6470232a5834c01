#!/usr/bin/python
"""Put a Kvrocks binary in place, once it has shown on this node that it is the one and can read its configuration."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: kvstrata_binary
short_description: Check a Kvrocks binary on the node, then put it in place
description: >-
  Checks the staged file, or the one in place when nothing is staged: its sha256, what C(--version) says, and that it
  knows every directive that it is to be given. Only then is a staged file moved into place; a refused one is removed.
options:
  path: {description: Where the binary belongs., type: path, required: true}
  staged: {description: The new binary beside it; may be missing., type: path, required: true}
  sha256: {description: What the controller has., type: str, required: true}
  version: {description: What it must say of itself; not compared when empty., type: str, default: ""}
  configs: {description: Directives of the stores by name., type: list, elements: dict, required: true}
"""

TIMEOUT_S = 20
# Ends the reading of a configuration in every version, after all lines before it were read and before anything starts.
LAST = "port 99999999"


def sha256_of(path: str) -> str:
    """Return a file's sha256 in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def output_of(command: list[str], text: str = "") -> str:
    """Return what a command prints, whatever its exit status."""
    done = subprocess.run(
        command, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S, check=False
    )
    return done.stdout


def wrong_version(binary: str, wanted: str) -> str:
    """Return why the binary's version is not the wanted one, or nothing."""
    said = output_of([binary, "--version"]).strip()
    match = re.match(r"kvrocks (?:version )?(\S+)", said)
    if not match:
        return f"it is no Kvrocks that runs here; --version says: {said[:200] or 'nothing'}"
    if wanted and match.group(1) != wanted:
        return f"its version is {match.group(1)}; allowed: {wanted}"
    return ""


def unread(binary: str, config: dict[str, str]) -> str:
    """Return what the binary does not take of a configuration, or nothing. It starts no server and opens no data."""
    lines = [f"{name} {value}" for name, value in config.items() if value != ""]
    said = output_of([binary, "-c", "-"], "\n".join([*lines, LAST]) + "\n")
    unknown = re.findall(r"WARNING: '([^']+)' at line", said)
    if unknown:
        return f"it does not know {', '.join(unknown)}, and would go on without"
    failed = re.search(r"Failed to load config\. Error: at line #L(\d+): (.*)", said)
    if not failed:
        return f"it did not read a configuration: {said[-200:].strip()}"
    number = int(failed.group(1))
    return "" if number > len(lines) else f"{lines[number - 1]!r} is refused: {failed.group(2)}"


def judge(binary: str, sha256: str, version: str, configs: list[dict[str, str]]) -> str:
    """Return why a binary must not be used, or nothing."""
    seen = sha256_of(binary)
    if seen != sha256:
        return f"its sha256 is {seen}; allowed: {sha256}, which the controller has"
    try:
        reasons = [wrong_version(binary, version), *(unread(binary, config) for config in configs)]
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it does not run here: {error}"
    return next(filter(None, reasons), "")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "staged": {"type": "path", "required": True},
            "sha256": {"type": "str", "required": True},
            "version": {"type": "str", "default": ""},
            "configs": {"type": "list", "elements": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    want = module.params
    is_new = os.path.exists(want["staged"])
    binary = want["staged"] if is_new else want["path"]
    if module.check_mode and not (os.path.exists(binary) and sha256_of(binary) == want["sha256"]):
        module.exit_json(changed=True, msg="NOT CHECKED in check mode: the binary is not on the node yet")
    if not os.path.exists(binary):
        module.fail_json(msg=f"{binary} does not exist")
    if reason := judge(binary, want["sha256"], want["version"], want["configs"]):
        if is_new:
            with contextlib.suppress(OSError):
                os.unlink(want["staged"])
        module.fail_json(msg=f"the Kvrocks binary for {want['path']} is refused, and nothing was changed: {reason}")
    if is_new and not module.check_mode:
        os.replace(want["staged"], want["path"])
    module.exit_json(changed=is_new, msg="checked")


if __name__ == "__main__":
    main()
