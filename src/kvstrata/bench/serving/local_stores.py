"""The stores of a stack on this machine: Kvrocks with a profile of the role, or redis-server in its place."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from kvstrata.bench import procfs
from kvstrata.bench.errors import BenchError
from kvstrata.bench.resp import Connection, WrongAnswerError
from kvstrata.bench.server import free_port
from kvstrata.bench.serving import cache_options
from kvstrata.bench.serving.cache_options import StorePlace
from kvstrata.bench.serving.processes import Processes
from kvstrata.bench.sizes import GIB

HOST = "127.0.0.1"
_START_S = 120.0
_ADMIN_S = 60.0
_ANSWER_BYTES = 1 << 20
# Beyond what the chunks may take: what was evicted and is not compacted away yet.
_SPARE = 1.34


class LocalStores:
    """Fresh stores at every start; their folders are removed when they are stopped."""

    def __init__(self, binary: Path, folder: Path, processes: Processes, *, redis: bool) -> None:
        """Keep data below `folder`; with `redis` the binary is redis-server, and the data is in memory."""
        self._binary, self._folder, self._processes, self._redis = binary, folder, processes, redis
        self.places: tuple[StorePlace, ...] = ()

    def start(self, count: int, gib: float, profile: str) -> dict[str, dict[str, str]]:
        """Start `count` empty stores of `gib` GiB for chunks each; return their directives by name.

        Raises:
            BenchError: one did not start, or did not take its configuration.
        """
        self.places = tuple(StorePlace(HOST, free_port(), gib) for _ in range(count))
        given = {}
        for place in self.places:
            data = self._folder / str(place.port)
            data.mkdir(parents=True)
            directives = self._directives(place, data, profile)
            config = data.with_suffix(".conf")
            config.write_text("".join(f"{name} {value}\n" for name, value in directives.items()))
            argv = [str(self._binary), *([] if self._redis else ["-c"]), str(config)]
            # MALLOC_CONF of whoever runs this must not reach the stores.
            env = {name: value for name, value in os.environ.items() if name != "MALLOC_CONF"}
            env |= {} if self._redis else cache_options.kvrocks_environment(profile)
            self._processes.start(f"store:{place.name}", argv, env, f"store-{place.port}.log")
            given[f"store:{place.name}"] = directives
        for place in self.places:
            child = self._processes.running[f"store:{place.name}"]
            child.await_health(lambda place=place: self._answers(place), _START_S)  # type: ignore[misc]
            self._check(place, profile)
        return given

    def info(self) -> dict[str, str]:
        """Return what INFO says, by the name of each store."""
        return {place.name: str(_ask(place, "INFO")) for place in self.places}

    def flush(self) -> None:
        """Delete everything in them."""
        for place in self.places:
            _ask(place, "FLUSHALL")

    def drop_page_cache(self) -> None:
        """Write their files back and take them out of the page cache."""
        if self._folder.is_dir():
            procfs.drop_cache(self._folder)

    def forget(self) -> None:
        """Remove their data, after they were ended."""
        self.places = ()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _directives(self, place: StorePlace, data: Path, profile: str) -> dict[str, str]:
        own = {"bind": HOST, "port": str(place.port), "dir": str(data), "daemonize": "no", "supervised": "no"}
        if self._redis:
            most = int(place.capacity_gib * _SPARE * GIB)
            return own | {"save": '""', "appendonly": "no", "maxmemory": str(most), "maxmemory-policy": "noeviction"}
        whole = str(max(1, round(place.capacity_gib * _SPARE)))
        return own | {"log-dir": "stdout", "max-db-size": whole} | cache_options.kvrocks(profile)

    def _check(self, place: StorePlace, profile: str) -> None:
        """Compare with what was asked for: Kvrocks ignores what it does not know, with a line in its log."""
        if self._redis:
            return
        answer = _ask(place, "CONFIG", "GET", "*")
        effective = dict(zip(answer[::2], answer[1::2], strict=True)) if isinstance(answer, list) else {}
        wrong = {
            name: effective.get(name, "unknown to it")
            for name, value in cache_options.kvrocks(profile).items()
            if effective.get(name) != value
        }
        if wrong:
            raise BenchError(f"the store {place.name} did not take its configuration: {wrong}")

    def _answers(self, place: StorePlace) -> bool:
        try:
            return _ask(place, "PING") == "PONG"
        except (OSError, WrongAnswerError, BenchError):
            return False


def _ask(place: StorePlace, *words: str) -> str | list[str]:
    connection = Connection(place.port, _ANSWER_BYTES, _ADMIN_S)
    try:
        return connection.command(*words)
    finally:
        connection.close()
