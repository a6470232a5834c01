"""The layers that look at the whole site, in their order, and what each needs to be well before it is of any use."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kvstrata.verify import locality, throughput, weights
from kvstrata.verify.check import Check, Group, Layer, Question, Status
from kvstrata.verify.context import SiteContext
from kvstrata.verify.faults import layer as faults
from kvstrata.verify.layers.edge import virtual

# What a request through the site's endpoint needs.
_ENDPOINT = ("router.health", "router.workers", "router.completion", "engine.health")


@dataclass(frozen=True)
class SiteLayer:
    """One of them. `needs` are ids of checks; where one of them is bad, nothing is asked and that is said."""

    layer: Layer
    name: str
    checks: Callable[[SiteContext], Iterator[Check]]
    needs: tuple[str, ...] = ()


BEFORE_TIERS: Sequence[SiteLayer] = (
    SiteLayer(Layer.ENGINE, "weights", weights.checks),
    SiteLayer(Layer.ROUTER, "locality", locality.checks, _ENDPOINT),
    SiteLayer(Layer.EDGE, "virtual address", virtual.checks),
)
# The load comes after the proof of the tiers, whose counters bear no other traffic; faults come last of all.
AFTER_TIERS: Sequence[SiteLayer] = (
    SiteLayer(Layer.THROUGHPUT, "throughput", throughput.checks, _ENDPOINT),
    SiteLayer(Layer.FAULTS, "faults", faults.checks),
)


def run(layer: SiteLayer, site: SiteContext) -> Group:
    """The checks of one layer; one that breaks is an error in the report and costs no other."""
    started = time.monotonic()
    checks: list[Check] = []
    bad = sorted({f"{check.id} on {check.host}" for check in site.earlier if check.bad and check.id in layer.needs})
    try:
        if bad:
            checks.append(_row(layer, site).skip(f"{', '.join(bad)} did not pass"))
        else:
            for check in layer.checks(site):
                checks.append(check)
    except Exception as error:
        # Without this the layer's rows would only be missing from the report.
        checks.append(_row(layer, site, "bug").error(f"{type(error).__name__}: {error}"))
    return Group(layer.layer, site.cluster.site, tuple(checks), time.monotonic() - started)


def worst(group: Group) -> Status:
    """How the worst check of a group ended; PASS where there is none."""
    order = (Status.PASS, Status.SKIP, Status.ERROR, Status.FAIL)
    return max((check.status for check in group.checks), key=order.index, default=Status.PASS)


def _row(layer: SiteLayer, site: SiteContext, end: str = "all") -> Question:
    return Question(
        f"{layer.layer}.{end}",
        layer.layer,
        site.cluster.site,
        f"{layer.name} checks",
        "run",
        "see the checks named",
    )
