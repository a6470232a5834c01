#!/usr/bin/python
"""Ask the kernel whether its clock is synchronised, and systemd which daemon does it."""

from __future__ import annotations

import ctypes
import os
import time

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: kvstrata_clock
short_description: Tell whether the clock is synchronised
description: >-
  Reads the kernel's own state (adjtimex(2)), which every daemon that disciplines the clock keeps. Changes nothing.
options:
  timeout: {description: Seconds to wait for a clock that is not synchronised yet., type: int, default: 0}
"""

DAEMONS = ("chrony", "chronyd", "systemd-timesyncd", "ntpsec", "ntpd", "ntp", "openntpd", "phc2sys")
# struct timex of 64-bit Linux, where status follows modes, offset, freq, maxerror, esterror; longs but the first.
STATUS_AT = 40
SIZE = 512
STA_UNSYNC = 0x40
POLL_S = 0.5


def synchronised() -> bool:
    """Return whether the kernel takes its clock for synchronised.

    Raises:
        OSError: if the kernel does not tell.
    """
    buffer = ctypes.create_string_buffer(SIZE)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex(buffer) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return not ctypes.c_int.from_buffer(buffer, STATUS_AT).value & STA_UNSYNC


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"timeout": {"type": "int", "default": 0}}, supports_check_mode=True)
    deadline = time.monotonic() + module.params["timeout"]
    while not (found := synchronised()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    units = [f"{name}.service" for name in DAEMONS]
    _, out, _ = module.run_command(["systemctl", "show", "--property=Id,ActiveState", *units])
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in out.strip().split("\n\n")]
    running = sorted({block["Id"] for block in blocks if block.get("ActiveState") == "active"})
    module.exit_json(changed=False, synchronised=found, daemons=running)


if __name__ == "__main__":
    main()
