"""The node itself: units and their limits, drives, clock, NUMA, kernel, GPUs, and the link to the next node.

One command asks the node for nearly all of it (`survey`); each module here judges its part.
"""

from __future__ import annotations

from collections.abc import Iterator

from kvstrata.verify.check import Check
from kvstrata.verify.context import NodeContext
from kvstrata.verify.layers.host import (
    clock,
    etcd,
    firewall,
    gpu,
    health,
    link,
    mounts,
    numa,
    services,
    settings,
    speed,
    survey,
)

_SUBJECTS = (services, mounts, health, speed, clock, numa, settings, gpu, link, firewall, etcd)


def checks(ctx: NodeContext) -> Iterator[Check]:
    """Everything of the node that the inventory names."""
    seen = survey.look(ctx)
    for subject in _SUBJECTS:
        yield from subject.checks(ctx, seen)
