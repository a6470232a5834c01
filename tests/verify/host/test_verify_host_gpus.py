"""Driver, Fabric Manager, memory and kernel log of a node with GPUs."""

from __future__ import annotations

import pytest

from kvstrata.verify.check import Check, Status, UnableError
from kvstrata.verify.layers import host
from kvstrata.verify.layers.host import xid
from tests.driver.probes import FIXTURES
from tests.verify.fakes.site import Site

H100 = (FIXTURES / "smi-h100.xml").read_text()
VERSION = "580.159.04"
GPU = "0000:06:00.0 0x10de 0x2330 0x030200 no"
NVSWITCH = "0000:07:00.0 0x10de 0x22a3 0x068000 no"
NVLINK5 = "0000:08:00.0 0x15b3 0x1021 0x020700 yes"
CONNECTX = "0000:09:00.0 0x15b3 0x1021 0x020000 no"
ACTIVE = (
    f"LoadState=loaded\nActiveState=active\nSubState=running\nResult=success\nFabric Manager version is : {VERSION}"
)


@pytest.fixture
def cuda(site: Site) -> Site:
    """A node with one H100 and no NVSwitch."""
    site.document["accelerator"] = "cuda"
    site.document["nodes"][0]["gpus"] = 1
    site.nodes["node1"].host.parts |= {
        "smi": f"exit 0\n{H100}",
        "module": VERSION,
        "installed": VERSION,
        "library": f"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{VERSION}",
        "pci": f"{GPU}\n{CONNECTX}",
        "fabricmanager": "LoadState=not-found\nActiveState=inactive",
        "kernel-log": "journal",
    }
    return site


def ask(site: Site) -> dict[str, Check]:
    """The checks of GPUs by their ids; nothing else may fail."""
    found = {check.id: check for check in host.checks(site.context())}
    ids = ("host.driver", "host.fabric_manager", "host.xid", "host.ecc")
    assert not [check for check in found.values() if check.bad and check.id not in ids]
    return {check_id: found[check_id] for check_id in ids if check_id in found}


def only(site: Site, check_id: str) -> Check:
    """The one check that fails."""
    found = ask(site)
    assert [check.id for check in found.values() if check.bad] == [check_id]
    return found[check_id]


def changed(site: Site, old: str, new: str) -> None:
    text = site.nodes["node1"].host.parts["smi"]
    assert old in text
    site.nodes["node1"].host.parts["smi"] = text.replace(old, new)


def test_a_node_that_is_well_passes_and_is_not_asked_for_a_fabric(cuda: Site) -> None:
    found = ask(cuda)
    assert {check_id: check.status for check_id, check in found.items()} == {
        "host.driver": Status.PASS,
        "host.xid": Status.PASS,
        "host.ecc": Status.PASS,
    }
    assert found["host.driver"].seen == f"1 x NVIDIA H100 80GB HBM3, driver {VERSION}"
    assert found["host.driver"].data["driver"] == VERSION


def test_a_node_without_gpus_is_asked_nothing_of_them(cuda: Site) -> None:
    cuda.document["nodes"][0]["gpus"] = 0
    assert ask(cuda) == {}
    cuda.document["nodes"][0]["gpus"] = 1
    cuda.document["accelerator"] = "cpu"
    assert ask(cuda) == {}


# -- driver ----------------------------------------------------------------------------------------


def test_a_gpu_that_is_missing_fails(cuda: Site) -> None:
    cuda.document["nodes"][0]["gpus"] = 8
    check = only(cuda, "host.driver")
    assert check.expected.startswith("nvidia-smi sees 8 GPUs; ")
    assert check.seen == "nvidia-smi sees 1 GPUs, the PCI bus has 1"


def test_a_driver_that_does_not_answer_fails_once(cuda: Site) -> None:
    cuda.nodes["node1"].host.parts |= {
        "smi": "exit 18\nFailed to initialize NVML: Driver/library version mismatch",
        "library": "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.200.01",
    }
    check = only(cuda, "host.driver")
    assert check.seen == (
        "nvidia-smi ended with exit 18: Failed to initialize NVML: Driver/library version mismatch "
        f"(loaded module {VERSION}, installed module {VERSION}, library 580.200.01)"
    )
    assert ask(cuda)["host.ecc"].status is Status.SKIP


@pytest.mark.parametrize(
    ("part", "value"), [("installed", "580.200.01"), ("library", "/usr/lib64/libnvidia-ml.so.580.200.01")]
)
def test_a_driver_that_waits_for_a_restart_fails(cuda: Site, part: str, value: str) -> None:
    cuda.nodes["node1"].host.parts[part] = value
    check = only(cuda, "host.driver")
    assert "580.200.01: the node waits for a restart" in check.seen.replace(f", library {VERSION}", "")


def test_a_gpu_that_asks_to_be_recovered_fails(cuda: Site) -> None:
    changed(cuda, "<gpu_recovery_action>None", "<gpu_recovery_action>Reset")
    assert only(cuda, "host.driver").seen == "GPU 00000000:00:06.0: it asks for a recovery action: Reset"


# -- Fabric Manager --------------------------------------------------------------------------------


@pytest.mark.parametrize("switch", [NVSWITCH, NVLINK5])
def test_fabric_manager_is_asked_for_where_there_is_an_nvswitch(cuda: Site, switch: str) -> None:
    parts = cuda.nodes["node1"].host.parts
    parts["pci"] = f"{GPU}\n{switch}"
    check = only(cuda, "host.fabric_manager")
    assert check.seen == "the node has NVSwitches, and no service nvidia-fabricmanager"
    parts["fabricmanager"] = ACTIVE
    assert ask(cuda)["host.fabric_manager"].seen == f"active (running), version {VERSION}"


def test_a_fabric_manager_that_does_not_run_or_is_of_another_version_fails(cuda: Site) -> None:
    parts = cuda.nodes["node1"].host.parts
    parts["pci"] = f"{GPU}\n{NVSWITCH}"
    parts["fabricmanager"] = "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code"
    assert only(cuda, "host.fabric_manager").seen.startswith("failed (failed), result exit-code")
    parts["fabricmanager"] = ACTIVE.replace(VERSION, "580.95.05")
    assert f"version 580.95.05, and the driver is {VERSION}" in only(cuda, "host.fabric_manager").seen
    parts["fabricmanager"] = ACTIVE.partition("\nFabric")[0]
    assert ask(cuda)["host.fabric_manager"].status is Status.SKIP


def test_a_gpu_that_waits_for_the_fabric_is_its_failure_and_not_the_memorys(cuda: Site) -> None:
    parts = cuda.nodes["node1"].host.parts
    parts |= {"pci": f"{GPU}\n{NVSWITCH}", "fabricmanager": ACTIVE}
    before, fabric, after = H100.partition("<fabric>")
    parts["smi"] = "exit 0\n" + before + fabric + after.replace("<state>N/A", "<state>In Progress", 1)
    assert "its registration with the NVSwitch fabric is In Progress" in only(cuda, "host.fabric_manager").seen


# -- memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "seen"),
    [
        ("<remapped_row_pending>No", "<remapped_row_pending>Yes", "a memory row waits for its replacement"),
        ("<remapped_row_failure>No", "<remapped_row_failure>Yes", "a memory row could not be replaced"),
        ("<dram_uncorrectable>0", "<dram_uncorrectable>3", "3 uncorrectable memory errors since the driver was"),
    ],
)
def test_memory_that_failed_or_waits_for_repair_fails(cuda: Site, old: str, new: str, seen: str) -> None:
    changed(cuda, old, new)
    assert seen in only(cuda, "host.ecc").seen


def test_errors_of_the_past_are_told_and_memory_without_ecc_is_not_proven(cuda: Site) -> None:
    before, aggregate, after = H100.partition("<aggregate>")
    old = after.replace("<dram_uncorrectable>0", "<dram_uncorrectable>2", 1)
    cuda.nodes["node1"].host.parts["smi"] = "exit 0\n" + before + aggregate + old
    check = ask(cuda)["host.ecc"]
    assert check.status is Status.PASS
    assert check.seen.endswith("GPU 00000000:00:06.0: 2 uncorrectable memory errors in its life")
    changed(cuda, "<current_ecc>Enabled", "<current_ecc>Disabled")
    check = ask(cuda)["host.ecc"]
    assert check.status is Status.SKIP
    assert "ECC is off" in check.seen


# -- the kernel's log ------------------------------------------------------------------------------

JOURNAL = """journal
1795769000.123456 gpu1 kernel: NVRM: Xid (PCI:0000:19:00): 31, pid=4242, name=python3, Ch 00000008, MMU Fault
1795769001.123456 gpu1 kernel: NVRM: Xid (PCI:0000:19:00): 31, pid=4243, name=python3, Ch 00000008, MMU Fault
"""


def test_an_error_of_a_program_passes_and_is_told(cuda: Site) -> None:
    cuda.nodes["node1"].host.parts["kernel-log"] = JOURNAL
    check = ask(cuda)["host.xid"]
    assert check.status is Status.PASS
    assert check.seen.startswith("none that needs service: Xid 31 (2 times) on 0000:19:00: pid=4242")
    assert check.data["errors"] == [{"device": "0000:19:00", "kind": "Xid", "number": 31, "times": 2}]


def test_a_gpu_off_the_bus_fails_with_what_to_do(cuda: Site) -> None:
    line = "1795769002.000000 gpu1 kernel: NVRM: Xid (PCI:0000:19:00): 79, pid='<unknown>', GPU has fallen off the bus."
    cuda.nodes["node1"].host.parts["kernel-log"] = JOURNAL + line
    seen = only(cuda, "host.xid").seen
    assert seen == "Xid 79 on 0000:19:00: the GPU has fallen off the bus; restart the machine"


@pytest.mark.parametrize(
    ("line", "fatal"),
    [
        ("NVRM: Xid (PCI:0000:19:00): 63, pid=1, Row Remapper: New row marked for remapping", False),
        ("NVRM: Xid (PCI:0000:19:00): 94, pid=1, Contained: CE User Channel", False),
        ("NVRM: Xid (PCI:0000:19:00): 48, pid=1, An uncorrectable double bit error", True),
        ("NVRM: Xid (PCI:0000:19:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 00", True),
        ("NVRM: Xid (PCI:0000:19:00): 149, NETIR_LINK_EVT  Nonfatal XC0 i0 Link 00", False),
        ("NVRM: Xid (PCI:0000:19:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset)", True),
        ("NVRM: Xid (PCI:0000:19:00): 154, GPU recovery action changed from 0x1 (GPU Reset) to 0x0 (None)", False),
        ("nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error", False),
        ("nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 28 LTSSM Fault Up", True),
    ],
)
def test_what_ends_a_gpus_service_is_told_from_what_does_not(line: str, fatal: bool) -> None:
    (error,) = xid.errors(f"journal\n1795769000.1 gpu1 kernel: {line}", 24)
    assert bool(error.remedy) is fatal


def test_old_lines_of_the_ring_buffer_do_not_count() -> None:
    old = "[   100.000000] NVRM: Xid (PCI:0000:19:00): 79, GPU has fallen off the bus."
    new = "[ 90000.000000] NVRM: Xid (PCI:0000:19:00): 62, 0000 0000"
    assert [error.number for error in xid.errors(f"dmesg 100000.00\n{old}\n{new}", 24)] == [62]
    assert [error.number for error in xid.errors(f"dmesg 100000.00\n{old}\n{new}", 48)] == [79, 62]


@pytest.mark.parametrize("said", ["unreadable: dmesg: read kernel buffer failed: Operation not permitted", ""])
def test_a_log_that_cannot_be_read_is_an_error(said: str) -> None:
    with pytest.raises(UnableError, match="the kernel's log cannot be read"):
        xid.errors(said, 24)


def test_every_fatal_number_says_what_it_is_and_what_to_do() -> None:
    assert all(meaning and remedy for meaning, remedy in xid.FATAL.values())
