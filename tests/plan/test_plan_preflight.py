"""Preflight's use of the plan, through Ansible itself, against this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvstrata.paths import PROJECT
from tests.plan.test_plan_guard import LLAMA_8B, fact
from tests.plugins.modules import run_module

sys.path.insert(0, str(PROJECT / "plugins" / "modules"))
import kvstrata_probe  # type: ignore[import-not-found]

H100 = "NVIDIA H100 80GB HBM3"
INFORMATION = f"Model: \t\t {H100}\nIRQ:   \t\t 0\nGPU UUID: \t GPU-1\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with an inventory of this machine, the model's config.json and the playbook that asks."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    variables = {
        "kvstrata_site": "t",
        "kvstrata_accelerator": "cuda",
        "kvstrata_state_dir": str(tmp_path),
        "kvstrata_model": {"name": "m", "path": str(tmp_path), "revision": "1", "max_model_len": 8192},
        "kvstrata_dram_cache_gib": 1,
        "kvstrata_drives": [{"name": "d0", "device": "/dev/disk/by-id/nvme-x", "store_gib": 100}],
    }
    inventory = {"kvstrata": {"hosts": {"n1": host}, "vars": variables}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    # What the role reads, and its last task, with a GPU and a fact that this machine lacks.
    tasks = yaml.safe_load((PROJECT / "roles" / "preflight" / "tasks" / "main.yml").read_text())
    task = tasks[-1]
    texts = next(task["kvstrata_probe"]["texts"] for task in tasks if "kvstrata_probe" in task)
    look = {"kvstrata_probe": {"texts": texts}, "register": "_seen"}
    task["vars"] = {
        "_preflight_probe": "{{ _seen | combine({'gpus': [gpu]}) }}",
        "ansible_facts": {"ansible_local": {"kvstrata_drives": fact(d0=1.5)}},
    }
    play = {
        "hosts": "kvstrata",
        "gather_facts": False,
        "vars_files": [str(PROJECT / "playbooks" / "vars" / "roles.yml")],
        "vars": {"gpu": H100},
        "tasks": [look, task],
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    return tmp_path


def played(site: Path, **variables: Any) -> tuple[int, str]:
    given = json.dumps({"preflight_plan_strict": False, **variables})
    argv = ["ansible-playbook", "-i", str(site / "hosts.yml"), str(site / "play.yml"), "-e", given]
    env = os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(argv, cwd=PROJECT, env=env, capture_output=True, text=True, check=False, timeout=100)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_a_slow_drive_is_a_warning(site: Path) -> None:
    code, output = played(site)
    assert code == 0, output
    assert "[WARNING]: n1: kvstrata_drives is 'd0: 1.32 GB/s together, measured'" in output


def test_a_slow_drive_is_refused_where_that_is_asked_for(site: Path) -> None:
    code, output = played(site, preflight_plan_strict=True)
    assert code == 2
    assert "1 problem, and nothing was changed on any host" in output
    assert "Set lmcache_min_load_gbps to 5." in output


def test_what_is_not_known_is_said_and_refuses_nothing(site: Path) -> None:
    code, output = played(site, preflight_plan_strict=True, gpu="NVIDIA T4")
    assert code == 0, output
    assert "[WARNING]: tiers NOT JUDGED: no figures for NVIDIA T4" in output


def test_a_site_without_gpus_is_not_judged(site: Path) -> None:
    code, output = played(site, kvstrata_accelerator="cpu", preflight_plan_strict=True)
    assert code == 0, output
    assert "skipped=1" in output
    assert "WARNING" not in output


def test_the_probe_returns_small_texts_and_nothing_of_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("{}")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x80")
    paths = [str(tmp_path / name) for name in ("text", "binary", "missing")]
    seen = run_module("kvstrata_probe", {"texts": paths})
    assert list(seen["texts"].values()) == ["{}", "", ""]
    assert list(seen["texts"]) == paths


def test_the_probe_names_the_gpus_that_the_driver_names(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = ["/proc/driver/nvidia/gpus/0000:01:00.0/information", "/proc/driver/nvidia/gpus/0000:02:00.0/information"]
    monkeypatch.setattr(kvstrata_probe.glob, "glob", lambda pattern: paths if "nvidia" in pattern else [])
    monkeypatch.setattr(kvstrata_probe, "read", lambda path: INFORMATION if path == paths[0] else "")
    assert kvstrata_probe.gpus() == [H100]
