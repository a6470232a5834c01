"""Run the layers over a site: nodes in parallel, layers of a node in order, then those of the whole site."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from kvstrata.cluster import Cluster, Node
from kvstrata.verify import causes, masks, phases, units
from kvstrata.verify.access import greet
from kvstrata.verify.check import Check, Group, Layer, Question, UnableError, UnmetError
from kvstrata.verify.context import NodeContext, Peer, SiteContext
from kvstrata.verify.layers import NODE_LAYERS
from kvstrata.verify.pace import Paced
from kvstrata.verify.result import Result
from kvstrata.verify.shell import Shell
from kvstrata.verify.tiers import layer as tiers

# Connecting, its banner and its login each wait at most 10 s.
GREET_S = 35.0
# How often is looked whether the time is over.
POLL_S = 1.0


class Progress(Protocol):
    """What wants to know how far it is."""

    def begin(self, nodes: Sequence[str], layers: Sequence[Layer]) -> None:
        """Those layers of those nodes are looked at from now on, all nodes at the same time."""

    def group(self, group: Group) -> None:
        """A layer of a node is finished."""

    def step(self, text: str) -> None:
        """Something long began or ended."""


@dataclass(frozen=True)
class Selection:
    """What to verify: all layers and nodes where None. Faults are made only where they are asked for."""

    tiers: tiers.TiersOptions
    only: frozenset[Layer] | None = None
    limit: tuple[str, ...] | None = None
    faults: bool = False
    save_baseline: bool = False

    def wants(self, layer: Layer) -> bool:
        """Whether the layer is to run."""
        if layer is Layer.FAULTS:
            return self.faults
        return self.only is None or layer in self.only

    def why_not(self, layer: Layer) -> str:
        """Why a layer does not run."""
        if layer is Layer.FAULTS:
            return "--faults was not given. Not proven here: that requests are answered while something is down"
        return f"--only {','.join(sorted(self.only or ()))}"


def verify(
    cluster: Cluster, shells: Mapping[str, Shell], selection: Selection, timeout_s: float, progress: Progress
) -> Result:
    """Everything selected. `timeout_s` bounds the layers of each node, and each long wait of the proof."""
    began, started = datetime.now(UTC), time.monotonic()
    chosen = tuple(node for node in cluster.nodes if selection.limit is None or node.name in selection.limit)
    progress.step(f"connecting to {len(chosen)} nodes")
    greetings = greet(chosen, shells, GREET_S)
    reached = [node for node in chosen if greetings[node.name].reached]
    contexts = _contexts(cluster, reached, shells, timeout_s)
    groups = []
    for node in chosen:
        check = greetings[node.name].check
        groups.append(Group(Layer.HOST, node.name, (check,), check.duration_s))
        if not greetings[node.name].reached:
            progress.group(groups[-1])
    for group in _node_layers(contexts, selection, timeout_s, progress):
        progress.group(group)
        groups.append(group)
    checks = [check for group in groups for check in group.checks]
    checks += _not_run(cluster, selection, chosen, greetings_missing=[n for n in chosen if n not in reached])
    site = SiteContext(
        cluster, contexts, checks, progress.step, timeout_s, selection.tiers.seed, selection.save_baseline
    )

    def whole_site(layers: Sequence[phases.SiteLayer]) -> None:
        for layer in layers:
            if selection.wants(layer.layer):
                group = phases.run(layer, site)
                progress.group(group)
                groups.append(group)
                # `site.earlier` is this list: each layer sees those before it.
                checks.extend(group.checks)

    whole_site(phases.BEFORE_TIERS)
    outcome = tiers.TiersOutcome(())
    if selection.wants(Layer.TIERS):
        tier_started = time.monotonic()
        outcome = tiers.run(cluster, contexts, shells, checks, selection.tiers, progress.step)
        took = time.monotonic() - tier_started
        groups.append(Group(Layer.TIERS, cluster.site, outcome.checks, took))
        progress.group(groups[-1])
        checks += outcome.checks
    whole_site(phases.AFTER_TIERS)
    checks = causes.with_causes(cluster, checks)
    secrets = masks.passwords(cluster)
    return Result(
        cluster=cluster,
        nodes=tuple(node.name for node in chosen),
        checks=tuple(masks.masked(check, secrets) for check in _in_order(checks, cluster)),
        groups=tuple(groups),
        tiers=outcome,
        started_at=began.isoformat(timespec="seconds"),
        duration_s=time.monotonic() - started,
        measured=masks.masked_tables(site.tables, secrets),
    )


def _contexts(
    cluster: Cluster, reached: Sequence[Node], shells: Mapping[str, Shell], timeout_s: float
) -> dict[str, NodeContext]:
    """Each node with the next one that answers as its peer: every node is seen from outside, at linear cost."""
    contexts = {}
    for index, node in enumerate(reached):
        neighbour = reached[(index + 1) % len(reached)]
        peer = None if neighbour is node else Peer(neighbour, shells[neighbour.name])
        contexts[node.name] = NodeContext(cluster, node, shells[node.name], peer, timeout_s)
    return contexts


def _node_layers(
    contexts: Mapping[str, NodeContext], selection: Selection, timeout_s: float, progress: Progress
) -> Iterator[Group]:
    """Groups as they are finished; a node that isn't done in time gets an error for each layer it owes."""
    layers = [layer for layer in NODE_LAYERS if selection.wants(layer)]
    if not layers:
        return
    progress.begin(list(contexts), layers)
    finished: queue.Queue[Group] = queue.Queue()
    paced = Paced([partial(_walk, ctx, layers, finished.put) for ctx in contexts.values()], "verify")
    owed = {(name, layer) for name in contexts for layer in layers}
    while owed:
        begun = paced.last_begun
        # A node's time begins when it is its turn.
        left = POLL_S if begun is None else begun + timeout_s - time.monotonic()
        try:
            group = finished.get(timeout=max(0.0, min(POLL_S, left)))
        except queue.Empty:
            if left > 0:
                continue
            break
        owed.discard((group.host, group.layer))
        yield group
    for name, layer in sorted(owed):
        ctx = contexts[name]
        question = ctx.question(
            f"{layer}.deadline", f"{layer} checks", f"done within {timeout_s:g} s", ctx.command("uptime")
        )
        yield Group(layer, name, (question.error(f"not done within {timeout_s:g} s", timeout_s),), timeout_s)


def _walk(ctx: NodeContext, layers: Sequence[Layer], finished: Callable[[Group], None]) -> None:
    before = _restarts(ctx)
    for layer in layers:
        started = time.monotonic()
        checks: list[Check] = []
        try:
            checks += NODE_LAYERS[layer](ctx)
        except Exception as error:
            # Without this the layer's rows would only be missing from the report.
            question = ctx.question(f"{layer}.bug", f"{layer} checks", "run to their end", ctx.command("uptime"))
            checks.append(question.error(f"{type(error).__name__}: {error}"))
        if layer is layers[-1] and Layer.HOST in layers:
            checks.append(_steady(ctx, before))
        finished(Group(layer, ctx.node.name, tuple(checks), time.monotonic() - started))


def _restarts(ctx: NodeContext) -> dict[str, units.UnitState]:
    try:
        return units.states(ctx.shell, ctx.node.units)
    except UnableError:
        return {}


def _steady(ctx: NodeContext, before: Mapping[str, units.UnitState]) -> Check:
    def probe() -> str:
        after = units.states(ctx.shell, ctx.node.units)
        moved = [
            f"{name} ({before[name].restarts} -> {state.restarts} restarts)"
            for name, state in after.items()
            if name in before and before[name].invocation != state.invocation
        ]
        if moved:
            raise UnmetError(", ".join(moved))
        return f"{len(after)} units are the same processes as when the checks began"

    return ctx.question(
        "host.steady",
        "no unit restarted meanwhile",
        "no restart while it was checked",
        ctx.command("journalctl -p warning -n 50 --no-pager"),
    ).ask(probe)


def _not_run(
    cluster: Cluster, selection: Selection, chosen: Sequence[Node], greetings_missing: Sequence[Node]
) -> list[Check]:
    """What a reader might take for checked, and wasn't."""
    rows = []
    for layer in Layer:
        if layer is Layer.EDGE and cluster.edge is None:
            continue
        if not selection.wants(layer):
            question = Question(f"{layer}.all", layer, cluster.site, f"{layer} checks", "run", "leave out --only")
            rows.append(question.skip(selection.why_not(layer)))
            continue
        if layer not in NODE_LAYERS or layer is Layer.HOST:
            continue
        for node in greetings_missing:
            if layer is Layer.EDGE and node.edge is None:
                continue
            question = Question(f"{layer}.all", layer, node.name, f"{layer} checks", "run", "see host.ssh")
            rows.append(question.skip(f"{node.name} was not reached"))
    if selection.wants(Layer.ROUTER) and not any(node.router for node in chosen):
        question = Question("router.all", Layer.ROUTER, cluster.site, "router checks", "run", "group router")
        rows.append(question.skip("no node under verification runs a router: the site's endpoint"))
    left = [node.name for node in cluster.nodes if node not in chosen]
    if left:
        question = Question("host.all", Layer.HOST, cluster.site, "other nodes", "checked", "leave out --limit")
        rows.append(question.skip(f"--limit leaves out {', '.join(left)}"))
    return rows


def _in_order(checks: Sequence[Check], cluster: Cluster) -> list[Check]:
    """By layer, then by node as in the inventory; the site's own rows last."""
    layers = {layer: index for index, layer in enumerate(Layer)}
    nodes = {node.name: index for index, node in enumerate(cluster.nodes)}
    return sorted(checks, key=lambda check: (layers[check.layer], nodes.get(check.host, len(nodes))))
