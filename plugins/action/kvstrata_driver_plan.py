"""Action `kvstrata_driver_plan`: look at a node's GPUs and driver, and decide on the controller what it gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from kvstrata.driver.decide import decide
from kvstrata.driver.model import Probe, Wanted
from kvstrata.driver.packages import folder_of
from kvstrata.driver.reboot import activation
from kvstrata.preflight.problem import report

DOCUMENTATION = """
module: kvstrata_driver_plan
short_description: Look at a node's GPUs and driver, and decide on the controller what it gets
description:
  - Runs the module kvstrata_gpu_probe on the node and judges what it saw. Fails with every reason at once where the
    node cannot have what is wanted. Changes nothing.
options:
  wanted: {description: The fields of kvstrata.driver.model.Wanted., type: dict, required: true}
  candidates: {description: As of kvstrata_gpu_probe., type: list, elements: str}
  lock_patience: {description: As of kvstrata_gpu_probe., type: int, default: 0}
  root: {description: As of kvstrata_gpu_probe., type: path, default: /}
"""
_SHOWN = ("boot_id", "loaded", "installed", "library", "kernel", "initramfs", "real")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class ActionModule(ActionBase):  # type: ignore[misc]
    """The action, in Ansible's form."""

    _supports_check_mode = True
    _VALID_ARGS = frozenset({"wanted", "candidates", "lock_patience", "root"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `plan`, `activation` and `probe`, or fail with every refusal."""
        super().run(tmp, task_vars)
        facts = task_vars or {}
        given = dict(self._task.args)
        wanted = Wanted(**given.pop("wanted"), controller_boot_id=BOOT_ID.read_text().strip())
        seen = self._execute_module("kvstrata_gpu_probe", module_args=given, task_vars=facts)
        if seen.get("failed"):
            return dict(seen)
        probe = Probe.of(seen)
        plan = decide(wanted, probe)
        if plan.refusals:
            where = facts["inventory_hostname"]
            raise AnsibleActionFail(report([refusal.problem(where) for refusal in plan.refusals]))
        step = activation(probe)
        return {
            "changed": False,
            "plan": plan.as_dict(),
            "activation": {"reboot": step.reboot, "load": step.load},
            "probe": {name: seen[name] for name in _SHOWN},
            "folder": folder_of(probe),
            "warnings": list(plan.notes),
        }
