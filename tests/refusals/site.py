"""A site that is this machine: an inventory that preflight accepts, to be spoilt in one place at a time."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kvstrata.paths import PROJECT

PORTS = ("lmcache_port", "lmcache_http_port", "vllm_first_port", "router_port", "router_metrics_port")


@dataclass(frozen=True)
class Outcome:
    """How a run of the preflight playbook ended."""

    code: int
    output: str

    @property
    def problems(self) -> list[str]:
        """The lines of the report, as "WHERE: VARIABLE is VALUE; allowed: WHAT"."""
        return sorted(set(re.findall(r"^ +- (.*; allowed: .*)$", self.output, re.MULTILINE)))

    def only(self, part: str) -> str:
        """Return the one problem that holds `part`."""
        found = [problem for problem in self.problems if part in problem]
        assert len(found) == 1, self.output
        return found[0]

    @property
    def probed(self) -> bool:
        """Whether any host was looked at."""
        return "Look at the host" in self.output

    @property
    def changes(self) -> set[str]:
        """What the recap says of changes, over all hosts."""
        return set(re.findall(r"changed=\d+", self.output))


def base(folder: Path) -> dict[str, Any]:
    """Return an inventory of one node, this machine, which preflight accepts.

    It has no drives: a drive that would pass is a block device, and nobody but root can make one.
    """
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    release = platform.freedesktop_os_release()
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "kvstrata_site": "test",
        "kvstrata_accelerator": "cpu",
        "kvstrata_drives": [],
        "kvstrata_model": {"name": "m", "path": str(model), "revision": "1", "max_model_len": 1024},
        "kvstrata_dram_cache_gib": 1,
        "kvstrata_state_dir": str(folder / "state"),
        # Whatever this machine runs is supported here; what is not is the subject of tests of its own.
        "preflight_systems": {release["ID"]: [release.get("VERSION_ID", "")]},
        **dict(zip(PORTS, free_ports(len(PORTS)), strict=True)),
    }
    nodes: dict[str, Any] = {"n1": {"ansible_host": "127.0.0.1"}}
    return {"kvstrata": {"hosts": nodes, "vars": variables}, "router": {"hosts": {"n1": {}}}}


def free_ports(count: int) -> list[int]:
    """Return ports on which nobody listens at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def system_python() -> str:
    """Return a version of Python that this machine has where preflight looks, as "3.11"."""
    names = [path.name for path in Path("/usr/bin").glob("python3.*")]
    versions = [name.removeprefix("python") for name in names if re.fullmatch(r"python3\.\d+", name)]
    assert versions, "these tests need a Python of the distribution, as /usr/bin/python3.11"
    return versions[0]


def project_for(python: str, folder: Path) -> Path:
    """Return a checkout like this one, but for the Python that the wheels of its lock need."""
    project = folder / "project"
    project.mkdir()
    for name in ("ansible.cfg", "locks", "playbooks", "plugins", "roles"):
        (project / name).symlink_to(PROJECT / name)
    # A copy, for the code finds its project from where it lies.
    shutil.copytree(PROJECT / "src", project / "src", ignore=shutil.ignore_patterns("__pycache__"))
    lock = yaml.safe_load((PROJECT / "artifacts.lock.yml").read_text())
    for wheelhouse in lock["wheelhouses"].values():
        wheelhouse["python"] = python
    (project / "artifacts.lock.yml").write_text(yaml.safe_dump(lock))
    return project


def preflight(inventory: dict[str, Any], folder: Path, python: str | None = None) -> Outcome:
    """Run the preflight playbook on an inventory.

    Args:
        inventory: as base() returns it.
        folder: where the inventory and everything that the run leaves is written.
        python: the Python that the wheels of the nodes need; default one that this machine has.
    """
    project = project_for(python or system_python(), folder)
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump(inventory))
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(project / "ansible.cfg"),
        "PYTHONPATH": str(project / "src"),
        "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.timer",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_LOCAL_TEMP": str(folder / "ansible"),
        "ANSIBLE_REMOTE_TEMP": str(folder / "ansible"),
        "KVSTRATA_CACHE": str(folder / "cache"),
    }
    command = str(Path(sys.executable).with_name("ansible-playbook"))
    completed = subprocess.run(
        [command, str(project / "playbooks" / "preflight.yml"), "-i", str(path)],
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=100,
    )
    return Outcome(completed.returncode, completed.stdout)
