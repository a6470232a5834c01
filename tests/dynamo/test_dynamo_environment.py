"""The environment of Dynamo's processes, and the file that systemd reads it from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kvstrata.dynamo import environment, environment_file

EVENTS = {
    "publish": ["tcp://10.0.0.1:9301", "tcp://10.0.0.2:9301"],
    "subscribe": ["tcp://10.0.0.1:9302", "tcp://10.0.0.2:9302"],
}
FILE = {"backend": "file", "folder": "/run/kvstrata/dynamo", "events": EVENTS}
ETCD = {
    "backend": "etcd",
    "events": EVENTS,
    "endpoints": ["https://10.0.0.1:2379", "https://10.0.0.2:2379"],
    "lease_s": 60,
    "ca": "-----BEGIN CERTIFICATE-----\nCA\n",
    "certificate": "-----BEGIN CERTIFICATE-----\nCLIENT\n",
    "key": "-----BEGIN PRIVATE KEY-----\nKEY\n",
}


def test_workers_and_frontends_speak_the_same_planes() -> None:
    for discovery in (FILE, ETCD):
        found = environment(discovery, "10.0.0.1")
        assert (found["DYN_REQUEST_PLANE"], found["DYN_EVENT_PLANE"]) == ("tcp", "zmq")
        assert {value for name, value in found.items() if name.endswith("_HOST")} == {"10.0.0.1"}


def test_events_go_by_all_brokers_so_that_no_process_opens_a_port_of_its_own_for_them() -> None:
    assert environment(FILE, "10.0.0.1")["DYN_ZMQ_BROKER_URL"] == (
        "xsub=tcp://10.0.0.1:9301;tcp://10.0.0.2:9301 , xpub=tcp://10.0.0.1:9302;tcp://10.0.0.2:9302"
    )


def test_one_host_finds_its_processes_in_a_folder() -> None:
    found = environment(FILE, "10.0.0.1")
    assert (found["DYN_DISCOVERY_BACKEND"], found["DYN_FILE_KV"]) == ("file", "/run/kvstrata/dynamo")
    assert not [name for name in found if name.startswith("ETCD_")]


def test_several_hosts_find_theirs_in_etcd_with_certificates_as_text() -> None:
    found = environment(ETCD, "10.0.0.1")
    assert found["ETCD_ENDPOINTS"] == "https://10.0.0.1:2379,https://10.0.0.2:2379"
    assert found["ETCD_LEASE_TTL"] == "60"
    assert found["ETCD_AUTH_CLIENT_KEY"] == ETCD["key"]


@pytest.mark.parametrize(
    ("discovery", "why"),
    [
        ({}, "discovery backend is None; allowed: etcd, file"),
        ({"backend": "nats"}, "discovery backend is 'nats'; allowed: etcd, file"),
        ({"backend": "file", "events": EVENTS}, "discovery by file needs folder"),
        ({**FILE, "events": {}}, "discovery by file needs events"),
        ({**ETCD, "ca": "", "endpoints": []}, "discovery by etcd needs endpoints, ca"),
    ],
)
def test_a_discovery_that_cannot_work_is_refused(discovery: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        environment(discovery, "10.0.0.1")


def test_a_shell_reads_the_file_as_systemd_does(tmp_path: Path) -> None:
    # The quoting is the part of the shell's that systemd has too.
    values = {"A": 'a "b" $c `d` \\e', "PEM": "one\ntwo\n", "N": 3}
    path = tmp_path / "x.env"
    path.write_text(environment_file(values))
    shown = subprocess.run(
        ["sh", "-c", '. "$1"; printf "%s|%s|%s" "$A" "$PEM" "$N"', "sh", path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == 'a "b" $c `d` \\e|one\ntwo\n|3'


def test_a_name_that_systemd_would_skip_is_refused() -> None:
    with pytest.raises(ValueError, match="'A-B' is no name"):
        environment_file({"A-B": "1"})
