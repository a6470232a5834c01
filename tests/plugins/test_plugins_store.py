"""kvstrata_store against stores in this process."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.plugins.modules import run_module
from tests.plugins.resp import PASSWORD, Store


def entry(port: int, password: str = PASSWORD, config: dict[str, Any] | None = None) -> dict[str, Any]:
    fixed = {"drive": "d0", "unit": "kvrocks@d0.service", "path": "/dev/null", "conf": "", "live": []}
    return {**fixed, "host": "127.0.0.1", "port": port, "password": password, "config": config or {}}


def look(*stores: dict[str, Any], check_mode: bool = False, **changes: Any) -> dict[str, Any]:
    args = {"stores": list(stores), "engine": "kvrocks", "timeout": 1}
    return run_module("kvstrata_store", {**args, **changes}, check_mode=check_mode)


@pytest.fixture
def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_stores_that_are_ready_and_as_rendered_are_no_change() -> None:
    with Store(config={"maxmemory": "1024"}) as d0, Store(config={"maxmemory": "1024"}) as d1:
        wanted = {"maxmemory": "1024"}
        result = look(entry(d0.port, config=wanted), entry(d1.port, config=wanted))
    assert (result["changed"], result["msg"]) == (False, "all ready")
    assert d0.commands == d1.commands == ["AUTH", "PING", "INFO", "CONFIG"]


def test_a_store_that_is_loading_is_awaited() -> None:
    with Store(loading=2) as store:
        result = look(entry(store.port), timeout=20)
    assert "failed" not in result
    assert store.commands.count("PING") == 3


def test_a_store_that_loads_too_long_fails_with_its_own_words() -> None:
    with Store(loading=1000) as store:
        result = look(entry(store.port))
    assert result["failed"]
    assert result["msg"].startswith(f"127.0.0.1:{store.port} is not ready after 1 s: LOADING")


def test_a_wrong_password_fails_and_is_not_printed() -> None:
    with Store() as store:
        result = look(entry(store.port, "my-secret-guess"))
    assert result["failed"]
    assert "WRONGPASS" in result["msg"]
    assert "my-secret-guess" not in str(result)


def test_a_store_that_does_not_run_fails_with_its_address_beside_one_that_does(free_port: int) -> None:
    with Store() as store:
        result = look(entry(store.port), entry(free_port))
    assert result["failed"]
    assert result["msg"].startswith(f"127.0.0.1:{free_port} is not ready after 1 s")
    assert "refused" in result["msg"]


def test_another_engine_than_expected_fails() -> None:
    with Store(engine="redis") as store:
        result = look(entry(store.port))
        assert "failed" not in look(entry(store.port), engine="redis")
    assert result["failed"]
    assert result["msg"] == f"127.0.0.1:{store.port} runs redis, expected kvrocks"


def test_every_directive_that_did_not_take_effect_is_named() -> None:
    with Store(config={"workers": "8", "dir": "/d0", "rocksdb.block_size": "4096"}) as store:
        config = {"workers": 4, "dir": "/d0", "rocksdb.block_size": 4096, "invented": "yes"}
        result = look(entry(store.port, config=config))
    assert result["failed"]
    assert result["msg"] == (
        f"127.0.0.1:{store.port}: the effective configuration is not the rendered one: "
        "workers: rendered 4, effective 8; invented: rendered yes, effective unknown to the server"
    )


def test_what_is_wrong_with_each_store_is_said_at_once() -> None:
    with Store(engine="redis") as d0, Store(config={"workers": "8"}) as d1:
        result = look(entry(d0.port), entry(d1.port, config={"workers": 4}))
    assert f"127.0.0.1:{d0.port} runs redis, expected kvrocks" in result["msg"]
    assert f"127.0.0.1:{d1.port}: the effective configuration" in result["msg"]


def test_check_mode_does_not_wait_and_says_what_it_could_not_check(free_port: int) -> None:
    result = look(entry(free_port), timeout=600, check_mode=True)
    assert "failed" not in result
    assert result["msg"].startswith(f"NOT CHECKED in check mode: 127.0.0.1:{free_port} is not ready after 0 s")


def test_check_mode_says_the_differences_that_a_run_would_settle() -> None:
    with Store(config={"workers": "8"}) as store:
        result = look(entry(store.port, config={"workers": 4}), check_mode=True)
    assert "failed" not in result
    assert "workers: rendered 4, effective 8" in result["msg"]
