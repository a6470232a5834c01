"""The role's restarts over several hosts: Ansible's own loop, stores in this process, a systemctl of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvstrata.paths import PROJECT
from tests.plugins.resp import PASSWORD, Store

# One log for all hosts, with the begin and the end of each restart; a unit named in `broken` does not come back.
SYSTEMCTL = """#!/bin/sh
here=$(dirname "$0")
if [ "$1" = show ]; then
  shift 2
  for unit; do printf 'Id=%s\\nActiveState=active\\nUnitFileState=enabled\\n\\n' "$unit"; done
  exit 0
fi
echo "$HOST $2 begins" >> "$here/log"
grep -qsx "$HOST $2" "$here/broken" && exit 1
echo "$HOST $2 ends" >> "$here/log"
"""


@pytest.fixture
def stores() -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Return two running stores for each of three hosts."""
    with ExitStack() as stack:
        yield {
            host: [entry(stack.enter_context(Store(engine="redis", loading=2)).port, drive) for drive in ("d0", "d1")]
            for host in ("n1", "n2", "n3")
        }


def entry(port: int, drive: str) -> dict[str, Any]:
    unit = f"kvrocks@{drive}.service"
    fixed = {"host": "127.0.0.1", "password": PASSWORD, "path": "/dev/null", "conf": "", "config": {}, "live": []}
    return {**fixed, "drive": drive, "unit": unit, "port": port}


def play(folder: Path, stores: dict[str, list[dict[str, Any]]], restart: dict[str, list[str]]) -> tuple[int, list[str]]:
    """Run the role's run.yml with these stores to restart; return the exit status and the log."""
    (folder / "systemctl").write_text(SYSTEMCTL)
    (folder / "systemctl").chmod(0o755)
    hosts = {
        host: {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "_kvrocks_stores": entries,
            "applied": {"restart": dict.fromkeys(restart.get(host, []), "why")},
        }
        for host, entries in stores.items()
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    document = {
        "hosts": "all",
        "gather_facts": False,
        "any_errors_fatal": True,
        "environment": {"PATH": f"{folder}:{os.environ['PATH']}", "HOST": "{{ inventory_hostname }}"},
        "vars": {"_kvrocks_use": "redis", "_kvrocks_unit": {"changed": False}},
        "tasks": [
            {"ansible.builtin.set_fact": {"_kvrocks_applied": "{{ applied }}"}},
            {"ansible.builtin.import_tasks": str(PROJECT / "roles" / "kvrocks" / "tasks" / "run.yml")},
        ],
    }
    (folder / "play.yml").write_text(yaml.safe_dump([document]))
    temporary = {"ANSIBLE_LOCAL_TEMP": str(folder / "a"), "ANSIBLE_REMOTE_TEMP": str(folder / "a")}
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            str(folder / "hosts.yml"),
            str(folder / "play.yml"),
        ],
        env={**os.environ, **temporary, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    log = folder / "log"
    assert "failed=" in done.stdout, done.stdout + done.stderr
    return done.returncode, log.read_text().splitlines() if log.exists() else []


def pairs(log: list[str]) -> list[tuple[str, str]]:
    """Return host and drive of each restart; fails where one began before another had ended."""
    assert [line.replace("begins", "ends") for line in log[::2]] == log[1::2], log
    return [(host, unit) for host, unit, _ in map(str.split, log[::2])]


def test_one_store_of_all_hosts_restarts_at_a_time_and_only_those_that_must(
    tmp_path: Path, stores: dict[str, list[dict[str, Any]]]
) -> None:
    code, log = play(tmp_path, stores, {"n1": ["d0", "d1"], "n3": ["d1"]})
    assert code == 0
    assert sorted(pairs(log)) == [
        ("n1", "kvrocks@d0.service"),
        ("n1", "kvrocks@d1.service"),
        ("n3", "kvrocks@d1.service"),
    ]


def test_a_store_that_does_not_come_back_keeps_every_other_from_its_restart(
    tmp_path: Path, stores: dict[str, list[dict[str, Any]]]
) -> None:
    # None does, so whichever host comes first has the only restart.
    (tmp_path / "broken").write_text("".join(f"{host} kvrocks@d0.service\n" for host in stores))
    code, log = play(tmp_path, stores, {host: ["d0", "d1"] for host in stores})
    assert code != 0
    (only,) = log
    assert only.endswith(" kvrocks@d0.service begins")
