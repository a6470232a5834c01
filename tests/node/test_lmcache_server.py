"""The LMCache launcher: what reaches LMCache, and what never reaches the command line."""

import json
from pathlib import Path

import pytest

from kvstrata.node.lmcache_server import build_argv, main, read_passwords

STORE = {
    "host": "10.0.0.1",
    "port": 6666,
    "drive": "d0",
    "key_prefix": "ns",
    "num_workers": 2,
    "timeout_s": 5,
}
CONFIG = {"flags": {"--port": 5555, "--eviction-policy": "LRU"}, "stores": [STORE]}


def test_flags_come_in_their_order_before_the_adapters() -> None:
    argv = build_argv(CONFIG, {"10.0.0.1:6666": "s3cret"})
    assert argv[:6] == ["lmcache", "server", "--port", "5555", "--eviction-policy", "LRU"]
    assert argv[6] == "--l2-adapter"


def test_user_and_password_are_swapped_for_lmcache_0_5_6() -> None:
    adapter = json.loads(build_argv(CONFIG, {"10.0.0.1:6666": "s3cret"})[-1])
    assert (adapter["username"], adapter["password"]) == ("s3cret", "default")


def test_a_store_without_password_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"no password for the store 10\.0\.0\.1:6666"):
        build_argv(CONFIG, {})


def test_passwords_come_from_the_credentials_directory(tmp_path: Path) -> None:
    (tmp_path / "stores").write_text('{"10.0.0.1:6666": "s3cret"}')
    assert read_passwords({"CREDENTIALS_DIRECTORY": str(tmp_path)}) == {"10.0.0.1:6666": "s3cret"}


def test_started_by_hand_it_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match=r"start this through lmcache\.service"):
        read_passwords({})


def test_wrong_usage_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
