"""Every inventory of the repository holds what preflight and the verifier accept, so that none can rot."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kvstrata.cluster import Cluster, StoreEngine, describe
from kvstrata.paths import PROJECT
from kvstrata.preflight import variables
from kvstrata.preflight.site import judge_site

SITES = sorted(path.name for path in (PROJECT / "inventories").iterdir() if (path / "hosts.yml").exists())
EXAMPLE = PROJECT / "inventories" / "example"


@cache
def inventory(site: str) -> dict[str, Any]:
    """What Ansible reads of an inventory, values untemplated."""
    program = Path(sys.executable).with_name("ansible-inventory")
    argv = [str(program), "-i", str(PROJECT / "inventories" / site), "--list"]
    done = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, check=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def nodes(site: str) -> dict[str, dict[str, Any]]:
    """The variables of each node."""
    document = inventory(site)
    return {name: document["_meta"]["hostvars"][name] for name in document["kvstrata"]["hosts"]}


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The example as the verifier understands it, with a home of its own for the passwords this generates."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(home))
        patch.setenv("ANSIBLE_HOME", str(home / ".ansible"))
        return describe(EXAMPLE, root=PROJECT)


def test_the_lab_and_the_example_are_looked_at() -> None:
    assert {"lab", "example"} <= set(SITES)


@pytest.mark.parametrize("site", SITES)
def test_no_variable_is_unknown(site: str) -> None:
    known, ours = variables.known_variables(PROJECT), variables.prefixes(PROJECT)
    problems = [
        problem for name, given in nodes(site).items() for problem in variables.unknown(name, given, known, ours)
    ]
    assert [str(problem) for problem in problems] == []


@pytest.mark.parametrize("site", SITES)
def test_every_variable_has_its_type_and_none_is_missing(site: str) -> None:
    known, ours = variables.known_variables(PROJECT), variables.prefixes(PROJECT)
    problems = []
    for name, given in nodes(site).items():
        # Of the roles' variables only those that are set here: the playbooks set the required ones.
        set_here = {key for key in given if key in known and key.startswith(ours)}
        specs = {key: spec for key, spec in known.items() if key in set_here} | variables.site_specs(PROJECT)
        problems += variables.mistyped(name, given, specs)
    assert [str(problem) for problem in problems] == []


@pytest.mark.parametrize("site", SITES)
def test_no_value_of_ours_needs_a_template_that_the_tests_would_not_see(site: str) -> None:
    ours = variables.prefixes(PROJECT)
    given = {key: value for node in nodes(site).values() for key, value in node.items() if key.startswith(ours)}
    assert not re.search(r"{{|{%", json.dumps(given))


@pytest.mark.parametrize("site", SITES)
def test_addresses_drives_and_router_are_what_preflight_accepts(site: str) -> None:
    hosts = {
        name: {
            "ansible_host": node["ansible_host"],
            "kvstrata_fabric_address": node.get("kvstrata_fabric_address", node["ansible_host"]),
            "drives": node["kvstrata_drives"],
        }
        for name, node in nodes(site).items()
    }
    problems = judge_site(hosts, inventory(site)["router"]["hosts"])
    assert [str(problem) for problem in problems] == []


@pytest.mark.parametrize("site", SITES)
def test_nothing_is_set_that_the_playbooks_would_override(site: str) -> None:
    from kvstrata.docs.specs import read_specs

    mapped = read_specs(PROJECT).mapped
    assert {key for node in nodes(site).values() for key in node if key in mapped} == set()


def test_a_misspelt_variable_would_be_found() -> None:
    known, ours = variables.known_variables(PROJECT), variables.prefixes(PROJECT)
    (problem,) = variables.unknown("gpu1", {"kvstrata_replica": 2}, known, ours)
    assert "kvstrata_replicas" in str(problem)


def test_the_example_names_its_drives_by_id_and_each_only_once() -> None:
    devices = [drive["device"] for node in nodes("example").values() for drive in node["kvstrata_drives"]]
    assert len(devices) == 8
    assert len(set(devices)) == 8
    assert all(device.startswith("/dev/disk/by-id/") for device in devices)


def test_the_example_uses_every_gpu_it_declares() -> None:
    for node in nodes("example").values():
        assert node["kvstrata_replicas"] * node["kvstrata_model"]["tensor_parallel"] == node["kvstrata_gpus"]


def test_the_verifier_understands_the_example(described: Cluster) -> None:
    assert described.accelerator == "cuda"
    assert [node.name for node in described.nodes] == ["gpu1", "gpu2"]
    assert [node.router is not None for node in described.nodes] == [True, False]
    for node in described.nodes:
        assert [store.port for store in node.stores] == [6666, 6667, 6668, 6669]
        assert {store.engine for store in node.stores} == {StoreEngine.KVROCKS}
        assert [engine.port for engine in node.engines] == [8000, 8001]
        assert node.ssh.become
        assert node.ssh.user == "deploy"


def test_the_example_serves_on_the_fabric_and_logs_in_elsewhere(described: Cluster) -> None:
    for node in described.nodes:
        listeners = {engine.host for engine in node.engines} | {store.host for store in node.stores}
        assert listeners == {node.fabric_host}
        assert node.ssh.host not in listeners
