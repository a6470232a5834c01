"""A stack of processes on this machine: stores, LMCache's daemon, engines, and a router for several of those."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from kvstrata.bench import procfs
from kvstrata.bench.errors import BenchError
from kvstrata.bench.server import free_port
from kvstrata.bench.serving import cache_options, engine_options, served
from kvstrata.bench.serving.configurations import Accelerator, Configuration, refusal
from kvstrata.bench.serving.engine_options import EnginePlace, ServedModel
from kvstrata.bench.serving.local_host import Environment
from kvstrata.bench.serving.local_stores import LocalStores
from kvstrata.bench.serving.model import Counters, Endpoint, Json
from kvstrata.bench.serving.processes import Processes
from kvstrata.bench.serving.sampling import GpuSampler
from kvstrata.bench.serving.services import Services
from kvstrata.bench.serving.stack import Running
from kvstrata.l2.names import namespace_of

_CACHE_START_S = 180.0
_ROUTER_START_S = 120.0
_SHM = Path("/dev/shm")  # noqa: S108 - where LMCache keeps its pool


@dataclass(frozen=True)
class LocalSettings:
    """Everything about this machine that no configuration varies."""

    environment: Environment
    accelerator: Accelerator
    model: ServedModel
    folder: Path
    """Data of the stores and files of a run, on the drive to measure."""
    logs: Path
    store_binary: Path | None
    store_is_redis: bool = False
    stores: int = 1
    store_gib: float = 8.0
    """For chunks, in each store."""
    replicas: int = 1
    router_policy: str = engine_options.ROUTER_POLICY
    gpu_names: tuple[str, ...] = ()
    """Those that may be used."""
    gpus: tuple[int, ...] = ()
    """Their numbers; each replica takes as many as the model's tensor_parallel says, in order."""
    cpu_threads: int = 2
    start_timeout_s: float = 900.0
    request_timeout_s: float = 600.0


class LocalStack:
    """See Stack; a context manager, which ends all that it started."""

    def __init__(self, settings: LocalSettings) -> None:
        """Start nothing yet."""
        self._settings = settings
        self._processes = Processes(settings.logs)
        self._stores: LocalStores | None = None
        self._services = Services([], None)
        self._running: Running | None = None

    def __enter__(self) -> LocalStack:
        """Start what watches over the processes."""
        self._processes.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        """End everything."""
        try:
            self.stop()
        finally:
            self._processes.__exit__(*details)

    def describe(self) -> Mapping[str, Json]:
        """See Stack."""
        s = self._settings
        return {
            "kind": "local",
            "accelerator": s.accelerator,
            "model": asdict(s.model),
            "model_config": _config(s.model),
            "versions": dict(s.environment.versions),
            "store": "redis-server" if s.store_is_redis else "kvrocks",
            "stores": s.stores,
            "store_gib": s.store_gib,
            "replicas": s.replicas,
            "router_policy": s.router_policy if s.replicas > 1 else None,
            "gpus": s.replicas * s.model.tensor_parallel if s.accelerator == "cuda" else 0,
            "gpu_names": list(s.gpu_names),
            "cpu_threads": s.cpu_threads,
            # Of configurations that leave it to the role: a run that goes on must not mix two defaults.
            "asking": engine_options.ASKING,
        }

    def refuses(self, configuration: Configuration) -> str | None:
        """See Stack."""
        s = self._settings
        block = configuration.engine.get("block-size")
        if found := refusal(configuration, s.accelerator, block if isinstance(block, int) else None):
            return found
        if configuration.cache.startswith("lmcache") and "lmcache" not in s.environment.versions:
            return f"{s.environment.python} has no lmcache"
        if configuration.stores != "none" and s.store_binary is None:
            return "no Kvrocks at hand (--kvrocks; docs/kvrocks.md says where binaries come from)"
        return None

    def start(self, configuration: Configuration) -> Running:
        """See Stack."""
        self.stop()
        began = time.monotonic()
        given: dict[str, Json] = {}
        notes = []
        if configuration.cache == "lmcache-in-process":
            notes.append("LMCache in the engine does not tell DRAM from the store: L1 stands for both")
        if configuration.stores != "none":
            given |= {name: dict(found) for name, found in self._start_stores(configuration).items()}
            if self._settings.store_is_redis:
                notes.append("NOT AN SSD TIER: redis-server stands in for Kvrocks, and keeps everything in memory")
        lmcache = None
        port = 0
        if configuration.cache == "lmcache":
            port, lmcache, given["lmcache"] = self._start_lmcache(configuration)
        engines = []
        for number in range(self._settings.replicas):
            url, given[f"vllm:{number}"] = self._start_engine(configuration, number, port)
            engines.append(url)
        # LMCache's daemon is emptied by itself; what an engine keeps outside the GPU, by the engine.
        external = configuration.cache in ("native", "lmcache-in-process")
        sampler = GpuSampler(gpus=self._settings.gpus)
        self._services = Services(engines, lmcache, self._used, external=external, gpus=sampler)
        for number, url in enumerate(engines):
            child = self._processes.running[f"vllm:{number}"]
            child.await_health(_answers(self._services, f"{url}/health"), self._settings.start_timeout_s)
        front = engines[0]
        if len(engines) > 1:
            front, given["router"] = self._start_router(engines)
        self._running = Running(
            configuration=configuration,
            endpoint=Endpoint(front, self._settings.model.name, self._settings.request_timeout_s),
            start_s=time.monotonic() - began,
            options=given,
            direct=tuple(engines),
            notes=tuple(notes),
        )
        return self._running

    def begin(self) -> Counters:
        """See Stack."""
        return self._services.begin(self._stores.info if self._stores else dict)

    def end(self) -> Counters:
        """See Stack."""
        return self._services.end(self._stores.info if self._stores else dict)

    def settle(self, timeout_s: float) -> str | None:
        """See Stack."""
        return self._services.settle(timeout_s)

    def forget_memory(self) -> str | None:
        """See Stack."""
        if self._stores is not None:
            self._stores.drop_page_cache()
        return None

    def clear_engines(self) -> None:
        """See Stack."""
        self._services.clear_engines(external=False)

    def clear(self) -> Running:
        """See Stack."""
        assert self._running is not None  # noqa: S101 - nothing to clear before a start
        if self._running.configuration.cache == "lmcache-in-process":
            # lmcache 0.5.6: LMCacheConnectorV1 has no reset_cache().
            return self.start(self._running.configuration)
        self._services.clear()
        if self._stores is not None:
            self._stores.flush()
        return self._running

    def alive(self) -> str | None:
        """See Stack."""
        return self._processes.dead()

    def stop(self) -> None:
        """See Stack."""
        lmcache = self._processes.running.get("lmcache")
        self._processes.end()
        if lmcache is not None:
            # Where it was killed it leaves its pool, in memory.
            (_SHM / f"lmcache_l1_pool_{lmcache.pid}").unlink(missing_ok=True)
        if self._stores is not None:
            self._stores.forget()
            self._stores = None
        self._services.close()
        self._services = Services([], None)

    def _used(self) -> dict[str, dict[str, float]]:
        used = {
            f"process:{name}": {"cpu_s": child.cpu_s(), **{key: float(n) for key, n in child.io_bytes().items()}}
            for name, child in self._processes.running.items()
        }
        # Of all programs, and of this one with those that it waited for: what is left over is others' doing.
        machine = procfs.parse_cpu((procfs.PROC / "stat").read_text())
        own = machine - procfs.foreign_cpu_s(procfs.Usage())
        return used | {"machine": {"cpu_s": machine, "own_cpu_s": own}}

    def _start_stores(self, configuration: Configuration) -> Mapping[str, Mapping[str, str]]:
        settings = self._settings
        assert settings.store_binary is not None  # noqa: S101 - refuses() said so
        self._stores = LocalStores(
            settings.store_binary, settings.folder / "stores", self._processes, redis=settings.store_is_redis
        )
        # LMCache's own clients know one store.
        count = settings.stores if configuration.stores == "kvstrata" else 1
        return self._stores.start(count, settings.store_gib * (settings.stores / count), configuration.kvrocks_profile)

    def _start_lmcache(self, configuration: Configuration) -> tuple[int, str, Json]:
        port, http_port = free_port(), free_port()
        # Another one at each start, so that nothing of an earlier one can ever be hit.
        identity: dict[str, Json] = {"bench": time.time_ns(), "model": self._settings.model.name}
        places = self._stores.places if self._stores else ()
        server = cache_options.server(configuration, port, http_port, places, namespace_of(identity), identity)
        file = self._write("lmcache.json", json.dumps(server, indent=1))
        credentials = self._settings.folder / "credentials"
        credentials.mkdir(exist_ok=True)
        # Stores without a password: they listen on loopback alone, for minutes, with random data.
        (credentials / "stores").write_text(json.dumps({place.name: "" for place in places}))
        child = self._processes.start(
            "lmcache",
            [str(self._settings.environment.python), "-m", "kvstrata.node.lmcache_server", str(file)],
            self._settings.environment.variables()
            | engine_options.visible(self._settings.gpus)
            | {
                "CREDENTIALS_DIRECTORY": str(credentials),
                "LMCACHE_DISABLE_BANNER": "1",
                "LMCACHE_TRACK_USAGE": "false",
                "PYTHONUNBUFFERED": "1",
            },
            "lmcache.log",
        )
        url = f"http://127.0.0.1:{http_port}"
        child.await_health(_answers(self._services, f"{url}/healthcheck"), _CACHE_START_S)
        return port, url, server

    def _start_engine(self, configuration: Configuration, number: int, lmcache_port: int) -> tuple[str, Json]:
        settings = self._settings
        width = settings.model.tensor_parallel
        place = EnginePlace(
            port=free_port(),
            lmcache_port=lmcache_port,
            gpus=settings.gpus[number * width : (number + 1) * width] if settings.accelerator == "cuda" else (),
            cpu_threads=settings.cpu_threads,
        )
        options = engine_options.options(configuration, settings.model, place, settings.accelerator)
        redis = f"redis://{self._stores.places[0].name}?protocol=2" if self._stores else None
        variables = engine_options.environment(configuration, place, settings.accelerator, redis)
        file = self._write(f"vllm-{number}.yaml", yaml.safe_dump(options, sort_keys=False))
        # The module, not the script `vllm`: an environment that was carried to a host has none.
        argv = [str(settings.environment.python), "-m", "vllm.entrypoints.cli.main", "serve", "--config", str(file)]
        self._processes.start(
            f"vllm:{number}", argv, settings.environment.variables() | variables, f"vllm-{number}.log"
        )
        return f"http://127.0.0.1:{place.port}", {"options": options, "environment": dict(variables)}

    def _start_router(self, engines: list[str]) -> tuple[str, Json]:
        port = free_port()
        flags = engine_options.router_flags("127.0.0.1", port, free_port(), self._settings.router_policy)
        words = [str(word) for flag in flags.items() for word in flag]
        # The module, as for the engines.
        argv = [str(self._settings.environment.python), "-m", "vllm_router.launch_router", *words]
        argv += ["--worker-urls", *engines]
        child = self._processes.start("router", argv, self._settings.environment.variables(), "router.log")
        url = f"http://127.0.0.1:{port}"
        child.await_health(_answers(self._services, f"{url}/health"), _ROUTER_START_S)
        return url, flags

    def _write(self, name: str, text: str) -> Path:
        file = self._settings.folder / name
        file.write_text(text)
        return file


def _config(model: ServedModel) -> Json:
    """Return the model's config.json, by which others can tell what was served; None where it has none."""
    try:
        return served.read_config(Path(model.path), model.name)
    except BenchError:
        return None


def _answers(services: Services, url: str) -> Callable[[], bool]:
    return lambda: services.answers(url)
