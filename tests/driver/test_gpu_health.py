"""The health of GPUs: the recorded document of an H100, the same with one thing wrong, and lines of kernel logs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kvstrata.paths import PROJECT
from tests.driver.probes import FIXTURES
from tests.plugins.modules import run_module

sys.path.insert(0, str(PROJECT / "plugins" / "module_utils"))
import kvstrata_gpuhealth as health  # type: ignore[import-not-found]

H100 = (FIXTURES / "smi-h100.xml").read_text()


def test_the_recorded_h100_is_well() -> None:
    result = health.parse_smi(H100)
    assert result["driver_version"] == "580.159.04"
    assert result["findings"] == []
    (gpu,) = result["gpus"]
    assert (gpu["product_name"], gpu["current_ecc"], gpu["persistence_mode"]) == (
        "NVIDIA H100 80GB HBM3",
        "Enabled",
        "Enabled",
    )


@pytest.mark.parametrize(
    ("old", "new", "severity", "text"),
    [
        ("<remapped_row_failure>No", "<remapped_row_failure>Yes", "failing", "could not be replaced"),
        ("<remapped_row_pending>No", "<remapped_row_pending>Yes", "warning", "a memory row waits"),
        ("<sram_threshold_exceeded>No", "<sram_threshold_exceeded>Yes", "failing", "more SRAM errors"),
        ("<unrepairable_memory>No", "<unrepairable_memory>Yes", "failing", "cannot be repaired"),
        ("<channel_repair_pending>No", "<channel_repair_pending>Yes", "warning", "a memory channel waits"),
        ("<gpu_recovery_action>None", "<gpu_recovery_action>Reset", "failing", "recovery action: Reset"),
        ("<current_ecc>Enabled", "<current_ecc>Disabled", "warning", "ECC is off"),
        ("<pending_ecc>Enabled", "<pending_ecc>Disabled", "warning", "ECC is Enabled and will be Disabled"),
        ("<dram_uncorrectable>0", "<dram_uncorrectable>3", "failing", "uncorrectable memory errors since"),
        (
            "<sram_uncorrectable_parity>0",
            "<sram_uncorrectable_parity>1",
            "failing",
            "uncorrectable memory errors since",
        ),
    ],
)
def test_one_thing_wrong_with_a_gpu_is_one_finding(old: str, new: str, severity: str, text: str) -> None:
    assert old in H100
    found = health.parse_smi(H100.replace(old, new))["findings"]
    assert {finding["gpu"] for finding in found} == {"00000000:00:06.0"}
    assert [f["severity"] for f in found if text in f["text"]] == [severity]


def test_errors_of_the_past_are_a_warning() -> None:
    before, aggregate, after = H100.partition("<aggregate>")
    text = before + aggregate + after.replace("<dram_uncorrectable>0", "<dram_uncorrectable>2", 1)
    (finding,) = health.parse_smi(text)["findings"]
    assert (finding["severity"], finding["text"]) == ("warning", "2 uncorrectable memory errors in its life")


def test_a_gpu_that_waits_for_the_fabric_fails() -> None:
    before, fabric, after = H100.partition("<fabric>")
    text = before + fabric + after.replace("<state>N/A", "<state>In Progress", 1)
    (finding,) = health.parse_smi(text)["findings"]
    assert finding["severity"] == "failing"
    assert "In Progress" in finding["text"]
    done = after.replace("<state>N/A", "<state>Completed", 1).replace("<status>N/A", "<status>Success", 1)
    assert health.parse_smi(before + fabric + done)["findings"] == []


def test_the_older_form_of_the_counters_is_understood() -> None:
    document = """<nvidia_smi_log><driver_version>470.1</driver_version><gpu id="0"><ecc_errors><volatile>
    <single_bit><total>9</total></single_bit><double_bit><device_memory>2</device_memory><total>2</total></double_bit>
    </volatile></ecc_errors></gpu></nvidia_smi_log>"""
    (finding,) = health.parse_smi(document)["findings"]
    assert finding["text"].startswith("2 uncorrectable memory errors since")


def test_what_is_no_document_is_said_to_be_none() -> None:
    with pytest.raises(ValueError, match="wrote no XML"):
        health.parse_smi("NVIDIA-SMI has failed")


LOG = """[   12.3] nvidia 0000:19:00.0: enabling device (0000 -> 0002)
[ 7201.8] NVRM: Xid (PCI:0000:19:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
[ 7201.9] NVRM: Xid (PCI:0000:19:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
[ 9001.0] NVRM: Xid (PCI:0000:3b:00): 31, pid=4242, name=python3, Ch 00000008, intr 00000000. MMU Fault
[ 9002.0] NVRM: Xid (PCI:0000:10:1c): 63, pid=1896, Row Remapper: New row marked for remapping, reset gpu to activate.
[ 9003.0] nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error (First)
[ 9004.0] nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 28 LTSSM Fault Up
"""


def test_xids_are_counted_and_those_that_need_service_fail() -> None:
    found = {finding["text"].split(":")[0]: finding["severity"] for finding in health.parse_log(LOG)}
    assert found == {
        "Xid 79 2 times since the node started": "failing",
        "Xid 31 once since the node started": "warning",
        "Xid 63 once since the node started": "warning",
        "SXid 12028 once since the node started": "warning",
        "SXid 20034 once since the node started": "failing",
    }
    assert health.parse_log("nothing of that kind") == []


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_module_reports_what_the_programs_say(tmp_path: Path) -> None:
    (tmp_path / "smi.xml").write_text(H100)
    (tmp_path / "log").write_text(LOG)
    program(tmp_path, "nvidia-smi", f'[ "$*" = "-q -x" ] && cat {tmp_path}/smi.xml')
    program(tmp_path, "journalctl", f"cat {tmp_path}/log")
    result = run_module("kvstrata_gpu_health", {}, path=tmp_path)
    assert (result["error"], result["driver_version"], len(result["gpus"])) == ("", "580.159.04", 1)
    assert (
        result["failing"][0] == "GPU 0000:19:00: Xid 79 2 times since the node started: the GPU has fallen off the bus"
    )
    assert len(result["warning"]) == 3


def test_the_module_says_why_nvidia_smi_fails(tmp_path: Path) -> None:
    program(tmp_path, "journalctl", "exit 1")
    said = "Failed to initialize NVML: Driver/library version mismatch"
    program(tmp_path, "nvidia-smi", f'echo "{said}"; exit 18')
    assert run_module("kvstrata_gpu_health", {}, path=tmp_path)["error"] == said
    program(tmp_path, "nvidia-smi", "echo hello")
    assert "wrote no XML" in run_module("kvstrata_gpu_health", {}, path=tmp_path)["error"]
    assert run_module("kvstrata_gpu_health", {"smi": "no-such-smi"})["error"] == "there is no nvidia-smi on the node"
