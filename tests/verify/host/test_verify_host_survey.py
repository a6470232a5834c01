"""The survey's script, run by a real shell with programs that answer as a node's do, and what is read from it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from kvstrata.verify.check import UnableError
from kvstrata.verify.layers.host import clock, gpu, mounts, numa, services, survey, xid
from kvstrata.verify.shell import CommandTimeoutError, Completed
from tests.driver.probes import FIXTURES
from tests.verify.fakes.host import SURVEY, findmnt
from tests.verify.fakes.site import Site

UNITS = """Id=kvrocks@d0.service
MainPID={pid}
LimitNOFILE=1048576
LimitMEMLOCK=infinity
NUMAPolicy=n/a

Id=gone.service
MainPID=0"""
LOG = "1795769000.123456 gpu1 kernel: NVRM: Xid (PCI:0000:19:00): 79, pid=1, GPU has fallen off the bus."


class Node:
    """A folder of programs that come before the machine's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, program: str, text: str = "", *, status: int = 0) -> None:
        """A program prints a text and ends with a status."""
        (self.folder / f"{program}.out").write_text(text)
        path = self.folder / program
        path.write_text(f'#!/bin/sh\ncat "{self.folder}/{program}.out"\nexit {status}\n')
        path.chmod(0o755)

    def survey(self, *mounts: str, gpus: int = 0, units: str = "kvrocks@d0.service") -> survey.Survey:
        environment = {"PATH": f"{self.folder}:{os.environ['PATH']}"}
        argv = ["sh", "-c", survey.SCRIPT, "kvstrata", str(gpus), "24", units, *mounts]
        asked = time.time()
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False, timeout=60)
        assert done.stderr == ""
        return survey.parse(done.stdout, asked, time.time())


@pytest.fixture
def node(tmp_path: Path) -> Node:
    found = Node(tmp_path)
    found.has("systemctl", UNITS.format(pid=os.getpid()))
    found.has("systemd-detect-virt", "none\n", status=1)
    found.has("timedatectl", "yes\n")
    found.has("nvme")
    return found


def test_the_script_tells_of_the_node_itself(node: Node) -> None:
    seen = node.survey()
    began, ended = float(seen.part("begin")), float(seen.part("end"))
    assert clock.bounds(seen.asked_at, began, ended, seen.answered_at).within(60) is True
    assert seen.part("clock") == "yes"
    assert seen.container == ""
    assert "lo" in seen.part("addresses")
    assert seen.part("smart").endswith("/nvme")
    # Nothing of GPUs is asked where there are none.
    assert "smi" not in seen.parts
    with pytest.raises(UnableError, match="ended before its part `smi`"):
        seen.part("smi")


def test_a_container_says_what_kind_it_is(node: Node) -> None:
    node.has("systemd-detect-virt", "podman\n")
    assert node.survey().container == "podman"


def test_units_and_their_processes_are_found(node: Node) -> None:
    seen = node.survey()
    units = services.shown(seen)
    assert units["kvrocks@d0.service"]["LimitNOFILE"] == "1048576"
    assert set(units) == {"kvrocks@d0.service", "gone.service"}
    process = seen.part(f"process {os.getpid()}")
    assert services.limits(process)["Max open files"].hard > 0
    has = numa.running(process)
    assert has
    assert has.cpus == frozenset(os.sched_getaffinity(0))
    assert numa.running(seen.part("process 1"))


def test_mounts_come_with_what_findmnt_said_and_where_names_lead(node: Node, tmp_path: Path) -> None:
    node.has("findmnt", findmnt("/drives/d0"))
    link = tmp_path / "by-id"
    link.symlink_to("/dev/null")
    seen = node.survey(f"/drives/d0={link},/dev/disk/by-id/nvme-gone")
    found = mounts.mounted(seen, "/drives/d0")
    assert (found.source, found.number, found.fstype, found.root) == ("/dev/nvme0n1", "259:0", "xfs", "/")
    null, gone = mounts.named(seen, "/drives/d0")
    assert (null.path, null.number) == ("/dev/null", "1:3")
    assert (gone.name, gone.number) == ("/dev/disk/by-id/nvme-gone", "")


def test_gpus_are_asked_where_the_inventory_has_them(node: Node) -> None:
    node.has("nvidia-smi", (FIXTURES / "smi-h100.xml").read_text())
    node.has("modinfo", "580.159.04\n")
    node.has("journalctl", LOG + "\n")
    node.has("nv-fabricmanager", "Fabric Manager version is : 580.159.04\n")
    seen = node.survey(gpus=1)
    status, _, text = seen.part("smi").partition("\n")
    assert status == "exit 0"
    assert "<product_name>NVIDIA H100 80GB HBM3</product_name>" in text
    # Thousands of lines of no use.
    assert "supported_clocks>" not in text
    assert seen.part("installed") == "580.159.04"
    assert "Fabric Manager version is : 580.159.04" in seen.part("fabricmanager")
    (error,) = xid.errors(seen.part("kernel-log"), 24)
    assert (error.number, error.address) == (79, "0000:19:00")
    assert gpu.devices(seen) is not None


def test_a_log_that_cannot_be_read_is_said_to_be_none(node: Node) -> None:
    node.has("journalctl", "", status=1)
    node.has("dmesg", "", status=1)
    with pytest.raises(UnableError, match="cannot be read"):
        xid.errors(node.survey(gpus=1).part("kernel-log"), 24)
    node.has("dmesg", "[    1.500000] NVRM: Xid (PCI:0000:19:00): 79, GPU has fallen off the bus.\n")
    seen = node.survey(gpus=1).part("kernel-log")
    assert seen.startswith("dmesg ")
    assert "Xid" in seen


def test_the_command_carries_units_mounts_and_the_members_of_a_raid(site: Site) -> None:
    site.document["accelerator"] = "cuda"
    first = site.document["nodes"][0]
    first["gpus"] = 8
    first["mounts"] = [
        {"path": "/drives/d0", "fstype": "xfs", "device": "/dev/disk/by-id/a"},
        {"path": "/drives/r0", "fstype": "xfs", "devices": ["/dev/disk/by-id/b", "/dev/disk/by-id/c"]},
    ]
    site.document["verify"]["limits"] = {"xid_hours": 12}
    argv = survey.command(site.context())
    assert argv[3:] == [
        "kvstrata",
        "8",
        "12",
        "kvrocks@d0.service lmcache.service vllm@0.service",
        "/drives/d0=/dev/disk/by-id/a",
        "/drives/r0=/dev/disk/by-id/b,/dev/disk/by-id/c",
    ]
    site.document["accelerator"] = "cpu"
    assert survey.command(site.context())[4] == "0"


def test_a_survey_that_fails_says_so_without_the_script(site: Site) -> None:
    shell = site.nodes["node1"].shell
    shell.answers[SURVEY] = "half of it"
    found = survey.look(site.context())
    assert found.failure == "the survey of the node exited 0 and said: half of it"

    def silent(argv: object, timeout_s: float = 30) -> Completed:
        raise CommandTimeoutError(f"`{argv}` did not end")

    shell.run = silent  # type: ignore[method-assign]
    assert survey.look(site.context()).failure == "the survey of the node did not end within 5 s"
