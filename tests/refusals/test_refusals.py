"""Bad input, end to end: the playbook refuses it, says what is wrong, and has changed nothing.

All problems of a kind are said at once, so one run of the playbook serves several tests. That none of their lines comes
from anything but the fault that a test is about is what the run on the unspoilt site shows.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.refusals.site import Outcome, base, preflight, system_python


@pytest.fixture(scope="module")
def unspoilt(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("unspoilt")
    return preflight(base(folder), folder)


# --- variables ---


@pytest.fixture(scope="module")
def bad_variables(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("variables")
    inventory = base(folder)
    variables = inventory["kvstrata"]["vars"]
    variables.update(kvstrata_replcas=2, router_prot=9000, kvstrata_replicas="many", lmcache_chunk_tokens=64)
    variables.update(kvrocks_config={"rocksdb.write_buffer_size": 4097, "partition_filters": "yes"})
    variables.update(kvrocks_profile="fast", kvrocks_bind_also=["0.0.0.0"])  # noqa: S104 - to be refused
    del variables["kvstrata_model"]
    del variables["kvstrata_drives"]
    return preflight(inventory, folder)


def test_an_unknown_variable_is_refused_with_the_name_that_was_meant(bad_variables: Outcome) -> None:
    expected = "n1: unknown variable kvstrata_replcas is 2; allowed: did you mean kvstrata_replicas?"
    assert expected in bad_variables.problems, bad_variables.output


def test_an_unknown_variable_of_a_role_is_refused_too(bad_variables: Outcome) -> None:
    expected = "n1: unknown variable router_prot is 9000; allowed: did you mean router_port?"
    assert expected in bad_variables.problems, bad_variables.output


def test_a_variable_that_the_playbooks_would_override_is_refused(bad_variables: Outcome) -> None:
    problem = bad_variables.only("lmcache_chunk_tokens is ")
    assert problem.startswith("n1: lmcache_chunk_tokens is 64; allowed: nothing here, the playbooks set it")


def test_a_mistyped_value_is_refused_with_what_it_must_be(bad_variables: Outcome) -> None:
    problem = bad_variables.only("kvstrata_replicas is ")
    assert problem.startswith("n1: kvstrata_replicas is 'many'; allowed: int: Engines on a host")


def test_what_kvrocks_would_refuse_or_ignore_is_refused_before(bad_variables: Outcome) -> None:
    assert bad_variables.only("kvrocks_config[rocksdb.write_buffer_size]") == (
        "n1: kvrocks_config[rocksdb.write_buffer_size] is 4097; allowed: a whole number, 0 to 4096 (MiB)"
    )
    assert "Kvrocks 2.10.1 ignores it" in bad_variables.only("kvrocks_config[partition_filters]")
    assert "ssd_cache, ssd_durable, dram" in bad_variables.only("kvrocks_profile")


def test_every_address_is_refused(bad_variables: Outcome) -> None:
    problem = bad_variables.only("kvrocks_bind_also")
    assert problem.startswith("n1: kvrocks_bind_also is '0.0.0.0'; allowed: one address of the host")


@pytest.mark.parametrize("name", ["kvstrata_model", "kvstrata_drives"])
def test_a_missing_required_variable_is_refused_by_name(bad_variables: Outcome, name: str) -> None:
    problem = bad_variables.only(f"{name} is ")
    assert problem.startswith(f"n1: {name} is None; allowed: ")
    assert problem.endswith(f"(missing required arguments: {name})")


# --- the site ---


@pytest.fixture(scope="module")
def bad_site(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("site")
    inventory = base(folder)
    kernel_name = {"name": "d0", "device": "/dev/nvme0n1", "store_gib": 1}
    inventory["kvstrata"]["hosts"]["n2"] = {"ansible_host": "127.0.0.1", "kvstrata_drives": [kernel_name]}
    inventory["kvstrata"]["vars"]["nvme_wipe_tokens"] = {"n2": {"d0": "all"}, "n7": {}}
    inventory["router"] = {"hosts": {}}
    return preflight(inventory, folder)


@pytest.mark.parametrize("variable", ["ansible_host", "kvstrata_fabric_address"])
def test_two_nodes_with_one_address_are_refused_by_both_names(bad_site: Outcome, variable: str) -> None:
    expected = f"n1 and n2: {variable} is '127.0.0.1'; allowed: an address of its own for each node"
    assert expected in bad_site.problems, bad_site.output


def test_a_site_without_a_router_is_refused(bad_site: Outcome) -> None:
    expected = "inventory: group router is []; allowed: at least one node of the group kvstrata"
    assert expected in bad_site.problems, bad_site.output


def test_a_drive_by_its_kernel_name_is_refused(bad_site: Outcome) -> None:
    problem = bad_site.only("kvstrata_drives")
    assert problem.startswith("n2: kvstrata_drives[d0].device is '/dev/nvme0n1'; allowed: a name below /dev/disk/by-id")


def test_tokens_that_are_none_and_tokens_for_nobody_are_refused(bad_site: Outcome) -> None:
    assert bad_site.only("nvme_wipe_tokens[n2][d0] is 'all'").endswith("in quotes, as the refusal printed it")
    assert bad_site.only("nvme_wipe_tokens[n7]").endswith("allowed: nodes of the group kvstrata: n1, n2")


# --- the edge ---


@pytest.fixture(scope="module")
def bad_edge(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("edge")
    inventory = base(folder)
    files = {"certificate": f"{folder}/none.pem", "key": f"{folder}/none.key"}
    inventory["kvstrata"]["vars"]["kvstrata_edge"] = {"tls": files, "virtual_address": "127.0.0.9/8"}
    return preflight(inventory, folder)


def test_a_certificate_that_the_controller_has_not_is_refused_with_its_path(bad_edge: Outcome) -> None:
    assert "none.pem cannot be read: No such file or directory" in bad_edge.only("kvstrata_edge.tls")


def test_an_edge_without_keys_that_does_not_say_so_is_refused(bad_edge: Outcome) -> None:
    assert "or open: true (anybody may ask), not both" in bad_edge.only("api_keys []")


def test_an_address_that_moves_is_refused_where_it_cannot(bad_edge: Outcome) -> None:
    assert "only with two or more hosts in the group router" in bad_edge.only("virtual_address")


# --- the hosts ---


@pytest.fixture(scope="module")
def hosts_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hosts")


@pytest.fixture(scope="module")
def port_in_use() -> Iterator[int]:
    """Return a port on which this process listens until the module's tests end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def bad_hosts(hosts_folder: Path, port_in_use: int) -> Outcome:
    """Return a run on n1, with one fault of each kind, and n2, which differs in its address and its model."""
    inventory = base(hosts_folder)
    nodes, variables = inventory["kvstrata"]["hosts"], inventory["kvstrata"]["vars"]
    (hosts_folder / "model" / "config.json").unlink()
    variables["preflight_systems"] = {"minix": ["2"], "plan9": ["3", "4"]}
    variables["vllm_first_port"] = port_in_use
    variables["kvstrata_dram_cache_gib"] = 65536
    nodes["n1"]["kvstrata_model"] = {**variables["kvstrata_model"], "path": "/srv/models/none"}
    # An address of RFC 5737, which no host has.
    nodes["n2"] = {"ansible_host": "127.0.0.2", "kvstrata_fabric_address": "203.0.113.7"}
    for name, node in nodes.items():
        node["kvstrata_drives"] = [{"name": "d0", "device": f"/dev/disk/by-id/nvme-none-{name}", "store_gib": 1}]
    return preflight(inventory, hosts_folder, python="3.99")


def test_a_drive_that_is_missing_is_refused(bad_hosts: Outcome) -> None:
    assert bad_hosts.only("n1: kvstrata_drives[d0].device") == (
        "n1: kvstrata_drives[d0].device is '/dev/disk/by-id/nvme-none-n1'; "
        "allowed: a device that exists on the host; this one does not (missing: there is no such device)"
    )


def test_a_model_directory_that_does_not_exist_is_refused(bad_hosts: Outcome) -> None:
    assert bad_hosts.only("n1: kvstrata_model.path") == (
        "n1: kvstrata_model.path is '/srv/models/none'; allowed: a directory that exists on the host; this one does not"
    )


def test_a_model_directory_without_config_json_is_refused(bad_hosts: Outcome, hosts_folder: Path) -> None:
    assert bad_hosts.only("n2: kvstrata_model.path") == (
        f"n2: kvstrata_model.path is '{hosts_folder}/model'; allowed: a model directory; this one has no config.json"
    )


def test_a_port_in_use_is_refused_with_who_listens(bad_hosts: Outcome, port_in_use: int) -> None:
    me = Path("/proc/self/comm").read_text().strip()
    assert bad_hosts.only("n1: vllm_first_port").startswith(
        f"n1: vllm_first_port (vllm@0.service) is {port_in_use}; allowed: a free port; on this one listens {me} ("
    )


def test_a_host_without_the_python_of_the_wheels_is_refused(bad_hosts: Outcome) -> None:
    given, _, allowed = bad_hosts.only("n1: Python of the node").partition("; ")
    assert system_python() in given
    assert allowed == "allowed: 3.99, as the wheelhouse of artifacts.lock.yml needs"


def test_an_unsupported_system_is_refused_with_the_supported_ones(bad_hosts: Outcome) -> None:
    assert "; allowed: minix 2, plan9 3/4" in bad_hosts.only("n1: operating system")


def test_a_fabric_address_that_the_host_has_not_is_refused(bad_hosts: Outcome) -> None:
    assert bad_hosts.only("n2: kvstrata_fabric_address").startswith(
        "n2: kvstrata_fabric_address is '203.0.113.7'; allowed: an address of the host: 127.0.0.1"
    )


def test_what_does_not_fit_into_the_memory_is_refused_with_who_takes_it(bad_hosts: Outcome) -> None:
    assert bad_hosts.only("n1: memory budget").endswith("all that the host has. Who takes what:")
    assert re.search(r"LMCache's L1 +1 +65536.0 +65536.0 +kvstrata_dram_cache_gib", bad_hosts.output)


# --- all of them ---


def test_the_site_that_the_others_spoil_passes(unspoilt: Outcome) -> None:
    assert unspoilt.code == 0, unspoilt.output
    assert unspoilt.problems == []
    assert unspoilt.probed


@pytest.mark.parametrize(("kind", "count"), [("bad_variables", 10), ("bad_site", 6), ("bad_hosts", 13)])
def test_a_refusal_says_everything_at_once_and_ends_the_run(
    request: pytest.FixtureRequest, kind: str, count: int
) -> None:
    outcome: Outcome = request.getfixturevalue(kind)
    assert outcome.code != 0
    assert len(outcome.problems) == count, outcome.output
    assert "and nothing was changed on any host" in outcome.output


@pytest.mark.parametrize("kind", ["unspoilt", "bad_variables", "bad_site", "bad_hosts"])
def test_nothing_is_changed_on_any_host(request: pytest.FixtureRequest, kind: str) -> None:
    outcome: Outcome = request.getfixturevalue(kind)
    assert outcome.changes == {"changed=0"}, outcome.output


@pytest.mark.parametrize(("kind", "probed"), [("bad_variables", False), ("bad_site", False), ("bad_hosts", True)])
def test_a_bad_inventory_is_refused_before_any_host_is_looked_at(
    request: pytest.FixtureRequest, kind: str, probed: bool
) -> None:
    outcome: Outcome = request.getfixturevalue(kind)
    assert outcome.probed is probed, outcome.output
