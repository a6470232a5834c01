"""The checks of a store against real servers: redis-server always, Kvrocks where its binary is at hand."""

from __future__ import annotations

import subprocess
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from kvstrata.bench.server import free_port
from kvstrata.kvrocks.store import stores
from kvstrata.verify.check import Check, Status
from kvstrata.verify.layers import store
from tests.l2.stores import KINDS, KVROCKS
from tests.verify.fakes.nodes import files
from tests.verify.fakes.site import Site

PASSWORD = "secret-pw"
CONF = "/etc/kvstrata/kvrocks/d0.conf"


class Real:
    """The first store of a site as the role configures it, but for its folder and its address."""

    def __init__(self, site: Site, kind: str, folder: Path) -> None:
        self.site, self.kind = site, kind
        self.port = free_port()
        drive = folder / "d0"
        (drive / "kvrocks").mkdir(parents=True)
        instance = {"drive": "d0", "host": "127.0.0.1", "port": self.port, "password": PASSWORD, "max_db_size_gib": 1}
        settings = {
            **{"engine": kind, "profile": "ssd_cache", "workers": 2, "config": {"rocksdb.write_buffer_size": 16}},
            **{"bind": "127.0.0.1", "bind_also": [], "unix_socket": False, "tls": {}, "numa_policy": "preferred"},
            "redis_maxmemory_mib": 64,
        }
        (made,) = stores([instance], settings)
        self.conf = made["conf"].replace("/var/lib/kvstrata/drives", str(folder))
        path = folder / "store.conf"
        path.write_text(self.conf)
        argv = [str(KVROCKS), "-c", str(path)] if kind == "kvrocks" else ["redis-server", str(path)]
        self._process = subprocess.Popen(argv, cwd=folder, stdout=subprocess.DEVNULL)
        self.client = redis.Redis(port=self.port, password=PASSWORD, protocol=2)
        self._await()
        tier = "ssd" if kind == "kvrocks" else "dram"
        site.document["nodes"][0]["stores"][0] |= {"engine": kind, "tier": tier}
        site.document["nodes"][0]["mounts"] = [{"path": str(drive), "fstype": "xfs"}]
        for node in site.nodes.values():
            node.shell.ports["10.9.0.11", 6666] = self.port
        site.nodes["node1"].shell.answers["stat -f"] = "4096 1000 500"
        site.nodes["node1"].shell.answers["sh -c for file"] = files({CONF: lambda: self.conf})

    def _await(self) -> None:
        until = time.monotonic() + 30
        while True:
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                assert self._process.poll() is None, "the store ended at its start"
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def checks(self) -> dict[str, Check]:
        return {check.id: check for check in store.checks(self.site.context())}

    def bad(self) -> dict[str, str]:
        return {check.id: check.seen for check in self.checks().values() if check.bad}

    def stop(self) -> None:
        self.client.close()
        self._process.kill()
        self._process.wait()


@pytest.fixture(params=KINDS)
def real(request: pytest.FixtureRequest, site: Site, tmp_path: Path) -> Iterator[Real]:
    if request.param == "kvrocks" and not KVROCKS.exists():
        warnings.warn(f"NOT TESTED WITH KVROCKS: {KVROCKS} does not exist", stacklevel=1)
        pytest.skip(f"NOT TESTED WITH KVROCKS: {KVROCKS} does not exist")
    running = Real(site, request.param, tmp_path)
    yield running
    running.stop()


def test_a_store_as_the_role_configures_it_passes_every_check(real: Real) -> None:
    found = real.checks()
    assert {name: check.seen for name, check in found.items() if check.bad} == {}
    assert found["store.config"].data["not_compared"] == []
    compared = found["store.config"].data["in_force"]
    assert isinstance(compared, int)
    assert compared > (20 if real.kind == "kvrocks" else 10)
    skipped = {name for name, check in found.items() if check.status is Status.SKIP}
    assert skipped == (set() if real.kind == "kvrocks" else {"store.ssd"})


def test_a_directive_changed_by_hand_is_the_one_failure(real: Real) -> None:
    real.client.config_set("maxclients", 77)
    assert real.bad() == {"store.config": "maxclients is 77, the file sets 10000"}


def test_a_file_changed_since_the_store_began_is_the_one_failure(real: Real) -> None:
    real.conf = real.conf.replace("maxclients 10000", "maxclients 20000")
    assert real.bad() == {"store.config": "maxclients is 10000, the file sets 20000"}


def test_its_own_look_leaves_nothing_behind(real: Real) -> None:
    real.checks()
    assert real.client.keys("*") == []


def test_a_redis_without_memory_is_full(real: Real) -> None:
    if real.kind == "kvrocks":
        pytest.skip("Kvrocks has no maxmemory; max-db-size begins at 1 GiB, which takes too long to fill here")
    real.conf = real.conf.replace(f"maxmemory {64 << 20}", "maxmemory 1")
    real.client.config_set("maxmemory", 1)
    bad = real.bad()
    assert set(bad) == {"store.capacity"}
    assert "its memory has reached maxmemory; it does not write: " in bad["store.capacity"]
    assert real.checks()["store.roundtrip"].seen.startswith("NOT CHECKED: follows from store.capacity")
