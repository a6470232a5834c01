"""Asking Ansible for the model, with a fake ansible-playbook."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kvstrata.cluster import DescribeError, InvalidClusterError, describe
from kvstrata.cluster.describe import find_root

MINIMAL: dict[str, Any] = {
    "schema": 2,
    "site": "lab",
    "profile": "router",
    "accelerator": "cpu",
    "edge": None,
    "firewall": None,
    "model": {"name": "m", "path": "/m", "max_model_len": 10, "dtype": "float32"},
    "nodes": [
        {
            "name": "n",
            "ssh": {"host": "h", "port": 22, "user": "u", "key": None, "known_hosts": None, "become": True},
            "units": [],
            "mounts": [],
            "stores": [],
            "lmcache": None,
            "engines": [],
            "router": None,
            "edge": None,
            "etcd": None,
        }
    ],
    "verify": {"tiers": "never", "prompt_tokens": 1, "timeout_s": 1.5, "state_dir": "/s"},
}

# Writes its arguments and the mode of the file it was given, then what the test wants rendered.
FAKE = """
import json, os, pathlib, sys
target = next(word for word in sys.argv if word.startswith("kvstrata_describe_path=")).partition("=")[2]
folder = pathlib.Path(__file__).parent
mode = oct(os.stat(target).st_mode & 0o777)
(folder / "called.json").write_text(json.dumps({"argv": sys.argv[1:], "mode": mode, "path": target}))
"""


class Ansible:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = folder / "fake.py"
        self.inventory = folder / "inventory"
        self.inventory.write_text("")
        (folder / "playbooks").mkdir()
        (folder / "playbooks" / "describe.yml").write_text("")

    def does(self, code: str) -> None:
        self.script.write_text(FAKE + code)

    def describe(self, timeout_s: float = 30) -> object:
        program = [sys.executable, str(self.script)]
        return describe(self.inventory, root=self.folder, timeout_s=timeout_s, ansible_playbook=program)

    @property
    def called(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.folder / "called.json").read_text())
        return document


@pytest.fixture
def ansible(tmp_path: Path) -> Ansible:
    return Ansible(tmp_path)


def test_the_rendered_model_is_read_and_its_file_was_private_and_is_gone(ansible: Ansible) -> None:
    ansible.does(f"pathlib.Path(target).write_text({json.dumps(json.dumps(MINIMAL))})")
    cluster = ansible.describe()
    assert getattr(cluster, "site", None) == "lab"
    assert ansible.called["mode"] == "0o600"
    assert not Path(ansible.called["path"]).exists()
    argv = ansible.called["argv"]
    assert argv[0].endswith("playbooks/describe.yml")
    assert argv[argv.index("-i") + 1] == str(ansible.inventory)


def test_a_failing_playbook_is_told_with_its_last_words(ansible: Ansible) -> None:
    ansible.does('print("fatal: no such variable"); sys.exit(2)')
    with pytest.raises(DescribeError, match=r"failed \(exit 2\):\nfatal: no such variable"):
        ansible.describe()
    assert not Path(ansible.called["path"]).exists()


def test_a_playbook_that_renders_nothing_is_told(ansible: Ansible) -> None:
    ansible.does("")
    with pytest.raises(DescribeError, match="rendered nothing"):
        ansible.describe()


def test_a_playbook_that_renders_something_else_is_told_with_the_place(ansible: Ansible) -> None:
    ansible.does("pathlib.Path(target).write_text('{\"schema\": 2}')")
    with pytest.raises(InvalidClusterError, match="nodes: missing"):
        ansible.describe()


def test_a_playbook_that_does_not_end_is_given_up(ansible: Ansible) -> None:
    ansible.does("import time; time.sleep(20)")
    with pytest.raises(DescribeError, match="did not end within 1 s"):
        ansible.describe(timeout_s=1)


def test_a_missing_inventory_is_named(ansible: Ansible) -> None:
    with pytest.raises(DescribeError, match="inventory nowhere: no such file or folder"):
        describe(Path("nowhere"), root=ansible.folder)


def test_a_missing_program_is_named(ansible: Ansible) -> None:
    with pytest.raises(DescribeError, match="no-such-program: No such file"):
        describe(ansible.inventory, root=ansible.folder, ansible_playbook=["/no-such-program"])


def test_the_checkout_is_found_from_below_or_from_the_inventory(
    ansible: Ansible, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    assert find_root(ansible.inventory) == ansible.folder
    with pytest.raises(DescribeError, match=r"playbooks/describe\.yml not found"):
        find_root(elsewhere / "inventory")
    monkeypatch.chdir(ansible.folder / "playbooks")
    assert find_root(elsewhere / "inventory") == ansible.folder
