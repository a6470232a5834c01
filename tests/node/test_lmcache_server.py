"""The LMCache launcher: what reaches LMCache, and what never reaches a command line."""

import json
from typing import Any

import pytest

from kvstrata.node.lmcache_server import build_argv, main

L2: dict[str, Any] = {"namespace": "kvs-1", "endpoints": [{"host": "10.0.0.1", "port": 6666, "capacity_bytes": 1}]}
CONFIG = {"flags": {"--port": 5555, "--eviction-policy": "LRU"}, "l2": L2}
SERVICE = {"CREDENTIALS_DIRECTORY": "/run/credentials/lmcache.service"}


def test_flags_come_in_their_order_before_the_adapter() -> None:
    argv = build_argv(CONFIG, SERVICE)
    assert argv[:6] == ["lmcache", "server", "--port", "5555", "--eviction-policy", "LRU"]
    assert argv[6] == "--l2-adapter"
    assert len(argv) == 8


def test_the_adapter_is_told_where_the_passwords_are_and_not_what_they_are() -> None:
    params = json.loads(build_argv(CONFIG, SERVICE)[-1])["adapter_params"]
    assert params == {**L2, "passwords_file": "/run/credentials/lmcache.service/stores"}


def test_without_stores_there_is_no_adapter() -> None:
    assert "--l2-adapter" not in build_argv({**CONFIG, "l2": None}, {})


def test_started_by_hand_it_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match=r"start this through lmcache\.service"):
        build_argv(CONFIG, {})


def test_wrong_usage_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
