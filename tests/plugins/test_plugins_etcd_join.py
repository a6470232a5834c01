"""kvstrata_etcd_join: which cluster a member without data belongs to, with an etcdctl that a test answers for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.modules import run_module

OWN = "https://10.0.0.2:2380"
FIRST = {"ID": 10, "name": "n1", "peerURLs": ["https://10.0.0.1:2380"]}
REFUSED = "Error: dial tcp 10.0.0.1:2379: connect: connection refused"
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


def join(etcd: Path, answer: str, *, others: int = 1, check_mode: bool = False) -> dict[str, Any]:
    program = etcd / "bin" / "etcdctl"
    program.write_text(ETCDCTL.format(folder=etcd, answer=answer))
    program.chmod(0o755)
    args = {
        "name": "n2",
        "data": str(etcd / "data"),
        "peer_url": OWN,
        "others": [f"https://10.0.0.{n}:2379" for n in (1, 3)][:others],
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


def test_a_member_with_data_is_left_alone(etcd: Path) -> None:
    (etcd / "data" / "member").mkdir(parents=True)
    assert join(etcd, fails(SILENT))["changed"] is False
    assert not asked(etcd)


def test_where_nobody_has_a_cluster_it_founds_one(etcd: Path) -> None:
    assert join(etcd, fails(REFUSED), others=2)["msg"] == "n2 founds a cluster"
    assert (etcd / "initial.env").read_text() == (
        'ETCD_INITIAL_CLUSTER="n2=https://10.0.0.2:2380"\nETCD_INITIAL_CLUSTER_STATE="new"\n'
    )


def test_the_only_member_of_a_site_asks_nobody(etcd: Path) -> None:
    assert join(etcd, fails(SILENT), others=0)["msg"] == "n2 founds a cluster"
    assert not asked(etcd)


def test_where_there_is_a_cluster_it_joins_that(etcd: Path) -> None:
    assert join(etcd, members(FIRST))["msg"] == "n2 joins n1"
    assert "member add n2 --peer-urls=https://10.0.0.2:2380" in asked(etcd)
    assert (etcd / "initial.env").read_text() == (
        'ETCD_INITIAL_CLUSTER="n1=https://10.0.0.1:2380,n2=https://10.0.0.2:2380"\nETCD_INITIAL_CLUSTER_STATE="existing"\n'
    )


def test_one_that_was_added_and_never_started_is_not_added_twice(etcd: Path) -> None:
    join(etcd, members(FIRST, {"ID": 11, "peerURLs": [OWN]}))
    assert "member add" not in asked(etcd)


def test_what_the_cluster_has_of_it_from_before_its_data_was_lost_is_removed(etcd: Path) -> None:
    join(etcd, members(FIRST, {"ID": 255, "name": "n2", "peerURLs": [OWN]}))
    assert asked(etcd).index("member remove ff") < asked(etcd).index("member add n2")


def test_no_second_cluster_is_founded_beside_one_that_does_not_answer(etcd: Path) -> None:
    result = join(etcd, fails(SILENT))
    assert result["failed"] is True
    assert "founds no cluster of etcd while others may have one" in result["msg"]
    assert "https://10.0.0.1:2379: Error: context deadline exceeded" in result["msg"]
    assert not (etcd / "initial.env").exists()


def test_check_mode_changes_neither_the_cluster_nor_the_host(etcd: Path) -> None:
    assert join(etcd, members(FIRST), check_mode=True)["changed"] is True
    assert "member add" not in asked(etcd)
    assert not (etcd / "initial.env").exists()
