#!/usr/bin/python
"""Ask nvidia-smi and the kernel's log how the GPUs of a node are."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kvstrata_gpuhealth import FAILING, WARNING, parse_log, parse_smi

DOCUMENTATION = """
module: kvstrata_gpu_health
short_description: Ask nvidia-smi and the kernel's log how the GPUs of a node are
description:
  - Changes nothing, and does not fail for what it finds. `error` is what nvidia-smi says where it does not work;
    `failing` and `warning` are sentences on ECC errors, Xid errors and the like.
options:
  smi: {description: The program to ask., type: str, default: nvidia-smi}
"""
XIDS = ["--boot", "--no-pager", "--output=cat", "--grep=S?Xid \\("]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"smi": {"type": "str", "default": "nvidia-smi"}}, supports_check_mode=True)
    result = {"changed": False, "error": "", "driver_version": "", "gpus": [], "failing": [], "warning": []}
    smi = module.get_bin_path(module.params["smi"])
    if smi is None:
        module.exit_json(**{**result, "error": "there is no nvidia-smi on the node"})
    status, out, err = module.run_command([smi, "-q", "-x"])
    findings = []
    if status:
        result["error"] = " ".join((out + err).split()) or f"nvidia-smi ended with status {status}"
    else:
        try:
            seen = parse_smi(out)
        except ValueError as error:
            module.exit_json(**{**result, "error": str(error)})
        findings += seen["findings"]
        result.update(driver_version=seen["driver_version"], gpus=seen["gpus"])
    # journalctl ends with 1 where nothing matches; without a journal, the ring buffer has the last of it.
    journal = module.get_bin_path("journalctl")
    source = [journal, "--dmesg", *XIDS] if journal else ["dmesg"]
    findings += parse_log(module.run_command(source)[1])
    for severity in (FAILING, WARNING):
        result[severity] = ["GPU {}: {}".format(f["gpu"], f["text"]) for f in findings if f["severity"] == severity]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
