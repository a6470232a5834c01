"""The rules over what the probe and the guard saw on a host; what they saw is data here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kvstrata.preflight.host import Wanted, judge_host

DEVICE = "/dev/disk/by-id/nvme-A"
DRIVE = {"name": "d0", "device": DEVICE, "fstype": "xfs", "mount": "/var/lib/kvstrata/drives/d0"}
GUARD: dict[str, Any] = {"drives": {"d0": {"state": "blank", "tokens": []}}, "refusals": []}
MISSING = {
    "drive": "d0",
    "device": DEVICE,
    "reason": "missing",
    "seen": "there is no such device",
    "allowed": "a device that exists on the host; this one does not",
    "token": None,
}

MODEL = "/srv/models/m"
STORE_PORT = {"port": 6666, "variable": "kvrocks_first_port", "unit": "kvrocks@d0.service"}
ENGINE_PORT = {"port": 8000, "variable": "vllm_first_port", "unit": "vllm@0.service"}
MEMORY = {
    "engine": "kvrocks",
    "stores": 2,
    "profile": "ssd_cache",
    "workers": 8,
    "config": {},
    "redis_maxmemory_mib": 1024,
    "dram_cache_gib": 4,
    "replicas": 1,
    "engine_memory_gib": None,
    "accelerator": "cuda",
    "tensor_parallel": 4,
    "cpu_kv_gib": 1,
}


def wanted(**changes: Any) -> Wanted:
    fields: dict[str, Any] = {
        "systems": {"debian": ["12"], "ubuntu": ["22.04", "24.04"]},
        "python": "3.11",
        "fabric_address": "10.0.0.1",
        "model_path": MODEL,
        "drives": [DRIVE],
        "ports": [STORE_PORT, ENGINE_PORT],
        "memory": MEMORY,
    }
    return Wanted(**{**fields, **changes})


def probe(**changes: Any) -> dict[str, Any]:
    seen = {
        "os": {"id": "debian", "version_id": "12"},
        "pythons": {"3.11": "/usr/bin/python3.11"},
        "addresses": ["127.0.0.1", "10.0.0.1"],
        "paths": {
            MODEL: {"exists": True, "directory": True},
            f"{MODEL}/config.json": {"exists": True, "directory": False},
        },
        "ports": {"6666": [], "8000": []},
        "memory": 64 << 30,
        "cpus": "0-7",
        "numa_nodes": [0, 1],
    }
    return {**seen, **changes}


def lines(wanted_: Wanted, seen: Mapping[str, Any]) -> list[str]:
    return [str(problem) for problem in judge_host("n1", wanted_, seen, GUARD)]


def listener(unit: str, process: str = "python") -> dict[str, str]:
    return {"process": process, "unit": unit, "address": "0.0.0.0"}  # noqa: S104


def test_a_host_as_the_inventory_wants_it_passes() -> None:
    assert lines(wanted(), probe()) == []


@pytest.mark.parametrize(("name", "release"), [("debian", "12"), ("ubuntu", "22.04"), ("ubuntu", "24.04")])
def test_every_supported_release_passes(name: str, release: str) -> None:
    assert lines(wanted(), probe(os={"id": name, "version_id": release})) == []


@pytest.mark.parametrize(("name", "release"), [("debian", "11"), ("ubuntu", "12"), ("rocky", "8.9"), ("debian", "")])
def test_any_other_system_is_refused_with_the_supported_ones(name: str, release: str) -> None:
    assert lines(wanted(), probe(os={"id": name, "version_id": release})) == [
        f"n1: operating system is '{name} {release}'; allowed: debian 12, ubuntu 22.04/24.04"
    ]


@pytest.mark.parametrize(("name", "release"), [("debian", "13"), ("rocky", "9.4"), ("rhel", "9.6")])
def test_a_system_for_the_hosts_part_alone_is_refused_with_that(name: str, release: str) -> None:
    (line,) = lines(wanted(), probe(os={"id": name, "version_id": release}))
    assert line.endswith("; this one is known to the roles of playbooks/hosts.yml alone, not to the services")


@pytest.mark.parametrize(
    ("pythons", "given"),
    [
        ({}, "none"),
        ({"3.13": "/usr/bin/python3.13", "3.10": "/usr/bin/python3.10"}, "3.10, 3.13"),
        ({"3.1": "/usr/bin/python3.1"}, "3.1"),
    ],
)
def test_a_host_without_the_wheelhouses_python_is_refused(pythons: dict[str, str], given: str) -> None:
    assert lines(wanted(), probe(pythons=pythons)) == [
        f"n1: Python of the node is '{given}'; allowed: 3.11, as the wheelhouse of artifacts.lock.yml needs"
    ]


def test_one_python_among_several_is_enough() -> None:
    assert lines(wanted(), probe(pythons={"3.11": "a", "3.12": "b"})) == []


def test_an_address_that_the_host_has_not_is_refused_with_those_that_it_has() -> None:
    assert lines(wanted(fabric_address="10.0.0.9"), probe()) == [
        "n1: kvstrata_fabric_address is '10.0.0.9'; allowed: an address of the host: 127.0.0.1, 10.0.0.1"
    ]


def test_a_model_that_is_not_there_is_refused() -> None:
    nothing = {"exists": False, "directory": False}
    assert lines(wanted(), probe(paths={MODEL: nothing, f"{MODEL}/config.json": nothing})) == [
        f"n1: kvstrata_model.path is '{MODEL}'; allowed: a directory that exists on the host; this one does not"
    ]


def test_a_directory_without_config_json_is_no_model() -> None:
    paths = {MODEL: {"exists": True, "directory": True}, f"{MODEL}/config.json": {"exists": False, "directory": False}}
    assert lines(wanted(), probe(paths=paths)) == [
        f"n1: kvstrata_model.path is '{MODEL}'; allowed: a model directory; this one has no config.json"
    ]


def test_a_port_of_somebody_else_is_refused_with_who_has_it() -> None:
    seen = probe(ports={"6666": [], "8000": [listener("nginx.service", "nginx"), listener("", "caddy")]})
    assert lines(wanted(), seen) == [
        "n1: vllm_first_port (vllm@0.service) is 8000; "
        "allowed: a free port; on this one listens caddy (no unit), nginx (nginx.service)"
    ]


def test_a_port_that_its_own_unit_holds_is_fine_on_a_second_run() -> None:
    assert lines(wanted(), probe(ports={"6666": [listener("kvrocks@d0.service")], "8000": []})) == []


def test_a_port_of_the_unit_that_is_to_be_replaced_is_fine() -> None:
    port = {"port": 9000, "variable": "router_port", "unit": "dynamo-frontend.service"}
    seen = probe(ports={"9000": [listener("vllm-router.service", "vllm::router")]})
    assert len(lines(wanted(ports=[port]), seen)) == 1
    assert lines(wanted(ports=[port | {"replaces": "vllm-router.service"}]), seen) == []


def test_a_port_that_another_unit_of_ours_holds_is_refused() -> None:
    (line,) = lines(wanted(), probe(ports={"6666": [listener("kvrocks@d1.service", "kvrocks")], "8000": []}))
    assert line.endswith("on this one listens kvrocks (kvrocks@d1.service)")


@pytest.mark.parametrize("port", [0, 80, 1023, 65536])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    seen = probe(ports={str(port): []})
    assert lines(wanted(ports=[{**ENGINE_PORT, "port": port}]), seen) == [
        f"n1: vllm_first_port (vllm@0.service) is {port}; allowed: a port from 1024 to 65535"
    ]


@pytest.mark.parametrize("port", [1024, 65535])
def test_the_first_and_the_last_port_are_fine(port: int) -> None:
    assert lines(wanted(ports=[{**ENGINE_PORT, "port": port}]), probe(ports={str(port): []})) == []


def test_two_units_on_one_port_are_refused_by_both_names() -> None:
    ports = [STORE_PORT, {**ENGINE_PORT, "port": 6666}]
    assert lines(wanted(ports=ports), probe(ports={"6666": []})) == [
        "n1: kvrocks_first_port (kvrocks@d0.service) and vllm_first_port (vllm@0.service) is 6666; "
        "allowed: a port of its own for each unit of a host"
    ]


def test_everything_wrong_is_said_at_once() -> None:
    seen = probe(
        os={"id": "rocky", "version_id": "9"},
        pythons={},
        addresses=[],
        paths={MODEL: {"exists": False, "directory": False}, f"{MODEL}/config.json": {}},
        ports={"6666": [listener("")], "8000": [listener("")]},
    )
    assert [problem.variable for problem in judge_host("n1", wanted(), seen, {**GUARD, "refusals": [MISSING]})] == [
        "operating system",
        "Python of the node",
        "kvstrata_fabric_address",
        "kvstrata_model.path",
        "kvstrata_drives[d0].device",
        "kvrocks_first_port (kvrocks@d0.service)",
        "vllm_first_port (vllm@0.service)",
    ]


def test_stores_engines_and_caches_that_do_not_fit_are_refused_with_who_takes_what() -> None:
    (problem,) = judge_host("n1", wanted(), probe(memory=32 << 30), GUARD)
    assert (problem.variable, problem.given) == ("memory budget", "43.2 GiB")
    assert problem.allowed.startswith("at most 32.0 GiB, all that the host has. Who takes what:")
    rows = [line.split() for line in problem.allowed.splitlines()[2:]]
    assert ["kvrocks", "stores", "2", "2.6", "5.2", "kvrocks_profile,", "kvrocks_config"] in rows
    assert ["engines", "1", "32.0", "32.0", "kvstrata_replicas,", "kvstrata_engine_memory_gib"] in rows
    assert rows[-1] == ["together", "43.2"]


def test_a_drive_on_cpus_or_a_numa_node_that_the_host_has_not_is_refused() -> None:
    drives = [{**DRIVE, "cpus": "6-9"}, {**DRIVE, "name": "d1", "numa_node": 2}, {**DRIVE, "name": "d2", "cpus": "x"}]
    assert lines(wanted(drives=drives), probe()) == [
        "n1: kvstrata_drives[d0].cpus is '6-9'; allowed: CPUs of the host: 0-7",
        "n1: kvstrata_drives[d1].numa_node is 2; allowed: 0, 1",
        "n1: kvstrata_drives[d2].cpus is 'x'; allowed: CPUs and ranges of them, as \"0-3,8\"",
    ]


def test_cpus_and_numa_nodes_of_the_host_pass() -> None:
    assert lines(wanted(drives=[{**DRIVE, "cpus": "0,2-7", "numa_node": 1}]), probe()) == []
