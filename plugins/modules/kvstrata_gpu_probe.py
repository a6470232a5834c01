#!/usr/bin/python
"""Look at a node's GPUs, their driver and its packages without changing anything."""

from __future__ import annotations

import os

from ansible.module_utils import kvstrata_gpupackages as packages
from ansible.module_utils import kvstrata_gpuprobe as look
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: kvstrata_gpu_probe
short_description: Look at a node's GPUs, their driver and its packages without changing anything
description: What is seen is judged on the controller, by the action kvstrata_driver_plan.
options:
  candidates: {description: Packages whose versions on offer to ask for., type: list, elements: str}
  lock_patience: {description: Seconds to wait for the package manager's lock., type: int, default: 0}
  root:
    description: Where /sys, /proc and the kernel's modules are read. For tests alone, which have no GPU.
    type: path
    default: /
"""

INITRAMFS = (["update-initramfs", "-u"], ["dracut", "--force"])
"""The command that rebuilds the running kernel's initramfs, by which is there."""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "candidates": {"type": "list", "elements": "str"},
            "lock_patience": {"type": "int", "default": 0},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )

    def run(command: list[str]) -> tuple[int, str]:
        if module.get_bin_path(command[0]) is None:
            return 127, ""
        status, out, err = module.run_command(command, environ_update={"LC_ALL": "C"})
        return status, out or err

    system = look.Host(run)
    # A tree of a test stands for the hardware and the kernel alone; packages are always the node's own.
    host = look.Host(run, module.params["root"])
    real = host.root == "/"
    uname = os.uname()
    asked = module.params["candidates"]
    present, broken = packages.packages(system)
    module.exit_json(
        changed=False,
        real=real,
        os=look.os_release(system),
        kernel=look.kernel(host, uname.release, uname.machine),
        boot_id=host.read("proc/sys/kernel/random/boot_id"),
        container=look.container(host),
        devices=look.devices(host),
        loaded=look.loaded(host),
        installed=look.installed(host, uname.release) if real else look.parse_modinfo(host.read("modinfo")),
        library=look.library(system),
        initramfs=next((tool for tool in INITRAMFS if module.get_bin_path(tool[0])), []),
        nouveau=os.path.isdir(host.path("sys/module/nouveau")),
        secure_boot=look.secure_boot(host),
        packages=present,
        package_state={
            "broken": broken,
            "interrupted": packages.interrupted(system),
            "lock": packages.lock_holder(system, module.params["lock_patience"]),
        },
        own=packages.own(system),
        module_stream=packages.module_stream(system),
        candidates=packages.candidates(system, asked) if asked else None,
    )


if __name__ == "__main__":
    main()
