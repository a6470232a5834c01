"""kvstrata_etcd_join: which cluster a member without data belongs to, with an etcdctl that a test answers for."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.modules import run_module

OWN = "https://10.0.0.2:2380"
FIRST = {"ID": 10, "name": "n1", "peerURLs": ["https://10.0.0.1:2380"]}
SILENT = "Error: context deadline exceeded"

ETCDCTL = """#!/bin/sh
echo "$*" >> "{folder}/asked"
case "$*" in
*"member list"*) {answer} ;;
*) echo done ;;
esac
"""


@pytest.fixture
def etcd(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    return tmp_path


@pytest.fixture
def there() -> Iterator[str]:
    """Where something takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"https://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def nowhere() -> Iterator[str]:
    """A port that is taken, and at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"https://127.0.0.1:{taken.getsockname()[1]}"


def join(etcd: Path, answer: str, *others: str, check_mode: bool = False) -> dict[str, Any]:
    program = etcd / "bin" / "etcdctl"
    program.write_text(ETCDCTL.format(folder=etcd, answer=answer))
    program.chmod(0o755)
    args = {
        "name": "n2",
        "data": str(etcd / "data"),
        "peer_url": OWN,
        "others": list(others),
        "tls": {"ca": "ca", "certificate": "cert", "key": "key"},
        "initial": str(etcd / "initial.env"),
    }
    return run_module("kvstrata_etcd_join", args, path=etcd / "bin", check_mode=check_mode)


def members(*found: dict[str, Any]) -> str:
    return f"echo '{json.dumps({'members': found})}'"


def fails(why: str) -> str:
    return f"echo '{why}' >&2; exit 1"


def asked(etcd: Path) -> str:
    return (etcd / "asked").read_text() if (etcd / "asked").exists() else ""


def test_a_member_with_data_is_left_alone(etcd: Path, there: str) -> None:
    (etcd / "data" / "member").mkdir(parents=True)
    assert join(etcd, fails(SILENT), there)["changed"] is False
    assert not asked(etcd)


def test_a_member_with_data_is_alone_where_none_of_the_others_runs(etcd: Path, there: str, nowhere: str) -> None:
    (etcd / "data" / "member").mkdir(parents=True)
    assert join(etcd, fails(SILENT), nowhere)["alone"] is True
    assert join(etcd, fails(SILENT), nowhere, there)["alone"] is False
    assert join(etcd, fails(SILENT))["alone"] is False


def test_where_nobody_has_a_cluster_it_founds_one(etcd: Path, nowhere: str) -> None:
    assert join(etcd, fails(SILENT), nowhere, nowhere)["msg"] == "n2 founds a cluster"
    assert (etcd / "initial.env").read_text() == (
        'ETCD_INITIAL_CLUSTER="n2=https://10.0.0.2:2380"\nETCD_INITIAL_CLUSTER_STATE="new"\n'
    )


def test_the_only_member_of_a_site_asks_nobody(etcd: Path) -> None:
    assert join(etcd, fails(SILENT))["msg"] == "n2 founds a cluster"
    assert not asked(etcd)


def test_where_there_is_a_cluster_it_joins_that(etcd: Path, there: str, nowhere: str) -> None:
    assert join(etcd, members(FIRST), nowhere, there)["msg"] == "n2 joins n1"
    assert "member add n2 --peer-urls=https://10.0.0.2:2380" in asked(etcd)
    assert (etcd / "initial.env").read_text() == (
        'ETCD_INITIAL_CLUSTER="n1=https://10.0.0.1:2380,n2=https://10.0.0.2:2380"\nETCD_INITIAL_CLUSTER_STATE="existing"\n'
    )


def test_one_that_was_added_and_never_started_is_not_added_twice(etcd: Path, there: str) -> None:
    join(etcd, members(FIRST, {"ID": 11, "peerURLs": [OWN]}), there)
    assert "member add" not in asked(etcd)


def test_what_the_cluster_has_of_it_from_before_its_data_was_lost_is_removed(etcd: Path, there: str) -> None:
    join(etcd, members(FIRST, {"ID": 255, "name": "n2", "peerURLs": [OWN]}), there)
    assert asked(etcd).index("member remove ff") < asked(etcd).index("member add n2")


def test_no_second_cluster_is_founded_beside_one_that_does_not_answer(etcd: Path, there: str) -> None:
    result = join(etcd, fails(SILENT), there)
    assert result["failed"] is True
    assert "founds no cluster of etcd while others may have one" in result["msg"]
    assert f"{there}: Error: context deadline exceeded" in result["msg"]
    assert not (etcd / "initial.env").exists()


def test_check_mode_changes_neither_the_cluster_nor_the_host(etcd: Path, there: str) -> None:
    assert join(etcd, members(FIRST), there, check_mode=True)["changed"] is True
    assert "member add" not in asked(etcd)
    assert not (etcd / "initial.env").exists()
