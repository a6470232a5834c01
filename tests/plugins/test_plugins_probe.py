"""kvstrata_probe on this machine, without root: what it sees, and that it says so of what is not there."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstrata.paths import PROJECT
from tests.plugins.modules import run_module

sys.path.insert(0, str(PROJECT / "plugins" / "modules"))
import kvstrata_probe  # type: ignore[import-not-found]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def port_of(server: socket.socket) -> int:
    port: int = server.getsockname()[1]
    return port


def test_a_listener_is_found_with_its_process_and_a_connection_is_none(listener: socket.socket) -> None:
    port = port_of(listener)
    with socket.create_connection(("127.0.0.1", port)) as client:
        other = client.getsockname()[1]
        seen = run_module("kvstrata_probe", {"ports": [port, other]})["ports"]
    (user,) = seen[str(port)]
    assert user["process"] == Path("/proc/self/comm").read_text().strip()
    assert user["address"] == "127.0.0.1"
    assert seen[str(other)] == []


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
def test_a_listener_on_ipv6_is_found() -> None:
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with server:
        port = port_of(server)
        (user,) = run_module("kvstrata_probe", {"ports": [port]})["ports"][str(port)]
    assert user["address"] == "::1"


def test_a_listener_whose_process_is_not_visible_still_holds_its_port(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kvstrata_probe.glob, "glob", lambda _pattern: [])
    (user,) = kvstrata_probe.listeners([port_of(listener)])[str(port_of(listener))]
    assert (user["process"], user["unit"], user["address"]) == ("a process not visible here", "", "127.0.0.1")


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/lmcache.service\n", "lmcache.service"),
        ("0::/system.slice/system-vllm.slice/vllm@0.service\n", "vllm@0.service"),
        ("0::/system.slice/nginx.service/worker\n", "nginx.service"),
        ("0::/user.slice/user-0.slice/session-1.scope\n", ""),
        ("", ""),
    ],
)
def test_the_unit_of_a_process_is_that_of_its_cgroup(monkeypatch: pytest.MonkeyPatch, cgroup: str, unit: str) -> None:
    monkeypatch.setattr(kvstrata_probe, "read", lambda path: cgroup if path == "/proc/7/cgroup" else "")
    assert kvstrata_probe.unit_of("7") == unit


def test_the_system_its_pythons_and_its_addresses_are_this_machines() -> None:
    seen = run_module("kvstrata_probe", {})
    release = platform.freedesktop_os_release()
    assert seen["os"] == {"id": release["ID"], "version_id": release.get("VERSION_ID", "")}
    assert "127.0.0.1" in seen["addresses"]
    assert all(os.access(path, os.X_OK) and path.endswith(f"python{name}") for name, path in seen["pythons"].items())
    assert seen["changed"] is False


def test_paths_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    paths = [str(tmp_path), str(tmp_path / "config.json"), str(tmp_path / "none")]
    seen = run_module("kvstrata_probe", {"paths": paths}, check_mode=True)["paths"]
    assert [seen[path] for path in paths] == [
        {"exists": True, "directory": True},
        {"exists": True, "directory": False},
        {"exists": False, "directory": False},
    ]


def files(monkeypatch: pytest.MonkeyPatch, **texts: str) -> None:
    monkeypatch.setattr(kvstrata_probe, "read", lambda path: texts.get(path.rsplit("/", 1)[-1].replace(".", "_"), ""))


@pytest.mark.parametrize(
    ("limits", "found"),
    [
        ({}, 8 << 30),
        ({"memory_max": "max\n"}, 8 << 30),
        ({"memory_max": f"{2 << 30}\n"}, 2 << 30),
        ({"memory_limit_in_bytes": f"{3 << 30}\n"}, 3 << 30),
        # Without a limit, cgroup v1 says a number larger than any memory.
        ({"memory_limit_in_bytes": "9223372036854771712\n"}, 8 << 30),
    ],
)
def test_the_memory_is_the_hosts_or_what_a_container_is_given_of_it(
    monkeypatch: pytest.MonkeyPatch, limits: dict[str, str], found: int
) -> None:
    files(monkeypatch, meminfo=f"MemTotal:       {8 << 20} kB\nMemFree: 1 kB\n", **limits)
    assert kvstrata_probe.memory() == found


def test_memory_and_cpus_are_this_machines() -> None:
    seen = run_module("kvstrata_probe", {})
    assert 0 < seen["memory"] <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert seen["cpus"] == Path("/sys/devices/system/cpu/online").read_text().strip()
    assert seen["numa_nodes"] == sorted(
        int(path.name.removeprefix("node")) for path in Path("/sys/devices/system/node").glob("node[0-9]*")
    )
