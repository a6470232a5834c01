"""Ten restarts of LMCache's process and of the store, twice the capacity written: bounded all along, and still warm."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from kvstrata.bench.faults.servers import MIB, PASSWORD
from kvstrata.paths import PROJECT
from tests.faults.conftest import KVROCKS

pytestmark = pytest.mark.timeout(300)

CAPACITY_MIB = {"redis": 96, "kvrocks": 256}
CHUNK_MIB = {"redis": 1, "kvrocks": 2}
ROUNDS = 10
ALLOWED = 1.05


class Watcher:
    """Asks the store all along what its index says, by another client than the adapter's."""

    def __init__(self, port: int) -> None:
        self._client = redis.Redis(port=port, password=PASSWORD, socket_timeout=5)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.samples = 0
        self.highest = self.highest_on_drive = 0
        self._thread.start()

    def used(self) -> int:
        """Bytes in use, as the index says."""
        names: set[bytes] = self._client.smembers("kvsx")  # type: ignore[assignment]
        cards = ((int(self._client.zcard(b"kvsx:" + name)), int(name.rpartition(b":")[2])) for name in names)
        return sum(card * size for card, size in cards)

    def there(self) -> int:
        """Bytes of all pieces that are there, by their own lengths."""
        total = 0
        for key in self._client.scan_iter("kvs:*", count=1000):
            fields: list[bytes] = self._client.hkeys(key)  # type: ignore[assignment]
            total += sum(int(self._client.hstrlen(key, field)) for field in fields if field != b"m")
        return total

    def stop(self) -> None:
        """Ask no more."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            try:
                self.highest = max(self.highest, self.used())
                info: dict[str, Any] = self._client.info("keyspace")
                self.highest_on_drive = max(self.highest_on_drive, int(info.get("used_db_size", 0)))
                self.samples += 1
            except redis.RedisError:
                continue  # it is being restarted


@pytest.fixture(scope="module")
def endured(
    node_python: Path, node_environ: dict[str, str], engine: str
) -> Iterator[tuple[str, list[dict[str, Any]], Watcher, tuple[int, int]]]:
    """All rounds, the watcher that saw them, and at the end the bytes in use and those that are there."""
    words = ["--engine", engine, "--kvrocks", str(KVROCKS)]
    words += ["--capacity-mib", str(CAPACITY_MIB[engine]), "--chunk-mib", str(CHUNK_MIB[engine])]
    process = subprocess.Popen(
        [node_python, "-m", "kvstrata.bench.faults.endurance", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=node_environ,
        cwd=PROJECT,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        assert first, process.stderr.read()
        watcher = Watcher(json.loads(first)["port"])
        process.stdin.write("\n")
        process.stdin.flush()
        rounds = [json.loads(line) for line in (process.stdout.readline() for _ in range(ROUNDS)) if line]
        assert len(rounds) == ROUNDS, process.stderr.read()
        # The store is there until we say so.
        assert process.stdout.readline().strip() == "done", process.stderr.read()
        watcher.stop()
        at_the_end = watcher.used(), watcher.there()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(60) == 0, process.stderr.read()
        yield engine, rounds, watcher, at_the_end
    finally:
        process.terminate()  # it removes its folder, and its servers end with it
        process.wait(30)


Endured = tuple[str, list[dict[str, Any]], Watcher, tuple[int, int]]


def test_usage_never_goes_above_the_capacity(endured: Endured) -> None:
    engine, _, watcher, _ = endured
    assert watcher.samples > 100
    assert watcher.highest <= CAPACITY_MIB[engine] * MIB * ALLOWED
    assert watcher.highest >= CAPACITY_MIB[engine] * MIB * 0.9, "the capacity was never put to the test"
    print(f"{engine}: {watcher.samples} samples, at most {watcher.highest / MIB:.0f} MiB in use,")
    print(f"{watcher.highest_on_drive / MIB:.0f} MiB on the drive (0: not Kvrocks)")


def test_what_was_stored_or_used_lately_is_served_after_every_restart(endured: Endured) -> None:
    for seen in endured[1]:
        assert seen["wrong_chunks"] == 0
        assert seen["warm_hit"] == seen["warm_asked"], seen
    assert sum(seen["warm_asked"] for seen in endured[1]) > 100


def test_twice_the_capacity_was_written(endured: Endured) -> None:
    engine, rounds, _, _ = endured
    stored = sum(seen["stored"] for seen in rounds)
    killed = sum(seen["killed"] for seen in rounds)
    assert killed == 1
    each = 2 * CAPACITY_MIB[engine] // CHUNK_MIB[engine] // ROUNDS
    assert stored >= each * (ROUNDS - killed)


def test_no_piece_is_there_that_the_index_does_not_count(endured: Endured) -> None:
    used, there = endured[3]
    assert there <= used
