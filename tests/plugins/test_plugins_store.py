"""kvstrata_store against a store in this process."""

from __future__ import annotations

import socket
from typing import Any

from tests.plugins.modules import run_module
from tests.plugins.resp import PASSWORD, Store


def look(store: Store, *, check_mode: bool = False, **changes: Any) -> dict[str, Any]:
    args = {"host": "127.0.0.1", "port": store.port, "password": PASSWORD, "engine": "kvrocks", "timeout": 1}
    return run_module("kvstrata_store", {**args, **changes}, check_mode=check_mode)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_store_that_is_ready_and_as_rendered_is_no_change() -> None:
    with Store(config={"maxmemory": "1024"}) as store:
        result = look(store, config={"maxmemory": "1024"})
    assert (result["changed"], result["engine"], result["differences"]) == (False, "kvrocks", [])
    assert store.commands == ["AUTH", "PING", "INFO", "CONFIG"]


def test_a_store_that_is_loading_is_awaited() -> None:
    with Store(loading=2) as store:
        result = look(store, timeout=20)
    assert "failed" not in result
    assert store.commands.count("PING") == 3


def test_a_store_that_loads_too_long_fails_with_its_own_words() -> None:
    with Store(loading=1000) as store:
        result = look(store)
    assert result["failed"]
    assert result["msg"].startswith(f"127.0.0.1:{store.port} is not ready after 1 s: LOADING")


def test_a_wrong_password_fails_and_is_not_printed() -> None:
    with Store() as store:
        result = look(store, password="my-secret-guess")
    assert result["failed"]
    assert "WRONGPASS" in result["msg"]
    assert "my-secret-guess" not in str(result)


def test_a_store_that_does_not_run_fails_with_its_address() -> None:
    port = free_port()
    result = look(Store(), port=port)
    assert result["failed"]
    assert f"127.0.0.1:{port} is not ready after 1 s" in result["msg"]
    assert "refused" in result["msg"]


def test_another_engine_than_expected_fails() -> None:
    with Store(engine="redis") as store:
        result = look(store)
        assert "failed" not in look(store, engine="redis")
    assert result["failed"]
    assert result["msg"] == f"127.0.0.1:{store.port} runs redis, expected kvrocks"


def test_every_directive_that_did_not_take_effect_is_named() -> None:
    with Store(config={"workers": "8", "dir": "/d0", "rocksdb.block_size": "4096"}) as store:
        result = look(store, config={"workers": 4, "dir": "/d0", "rocksdb.block_size": 4096, "invented": "yes"})
    assert result["failed"]
    assert result["msg"] == (
        "the effective configuration is not the rendered one: "
        "workers: rendered 4, effective 8; invented: rendered yes, effective unknown to the server"
    )


def test_check_mode_says_what_it_could_not_check() -> None:
    result = look(Store(), port=free_port(), timeout=60, check_mode=True)
    assert "failed" not in result
    assert result["msg"].startswith("NOT CHECKED in check mode: 127.0.0.1:")


def test_check_mode_lists_the_differences_that_a_run_would_settle() -> None:
    with Store(config={"workers": "8"}) as store:
        result = look(store, config={"workers": 4}, check_mode=True)
    assert "failed" not in result
    assert result["differences"] == ["workers: rendered 4, effective 8"]
