"""The twelve faults: how each is planted, how it is taken away, and which check must name it.

Every `unplant` may be called at any time and any number of times: what is not planted stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kvstrata.lab.planted import certificate, machine, services
from kvstrata.lab.planted.site import Site


@dataclass(frozen=True)
class Fault:
    """One fault. `host` is the node that the check must name; None where it is one of the whole site."""

    name: str
    check: str
    host: str | None
    how: str
    plant: Callable[[Site], None]
    unplant: Callable[[Site], None]
    besides: frozenset[str] = frozenset()
    """What is not well while it is planted (`Site.settle`), for that is the fault."""
    inventory: Callable[[Site], Path] = field(default=lambda site: site.inventory)
    """What is verified; another inventory where the fault needs another site."""


FAULTS = (
    Fault(
        "wrong-mount",
        "host.mount",
        "node2",
        "the store of d0 is stopped, another drive with an XFS of its own mounted over the drive's, the store started",
        machine.mount_another_drive,
        machine.unmount_it,
    ),
    Fault(
        "dead-breaker",
        "cache.breaker",
        "node2",
        "node2's packet filter refuses the cache daemon's user, and nobody else, the way to node1's d0: the store is "
        "well, and the breaker stays open",
        machine.refuse_the_cache,
        machine.let_the_cache,
        besides=frozenset({"breakers open"}),
    ),
    Fault(
        "stale-identity",
        "cache.identity",
        "node2",
        "another namespace in LMCache's configuration, and a restart",
        services.another_namespace,
        services.own_namespace,
    ),
    Fault(
        "swapped-model",
        "engine.weights",
        "node2",
        "a model of another seed is bound over the model's folder, and the engine restarted",
        services.another_model,
        services.own_model,
    ),
    Fault(
        "lossy-link",
        "host.link",
        None,
        "node2's packet filter drops 5 of 100 packets that come from node1, at random",
        machine.drop_packets,
        machine.let_packets,
    ),
    Fault(
        "slow-drive",
        "host.drive_speed",
        "node2",
        "d0's baseline is recorded (the role nvme), then its reads are throttled to a twentieth of that (blkio)",
        machine.throttle,
        machine.unthrottle,
    ),
    Fault(
        "router-without-affinity",
        "router.policy",
        None,
        "a drop-in starts the router with `--policy round_robin`",
        services.round_robin,
        services.own_policy,
    ),
    Fault(
        "expired-certificate",
        "store.certificate",
        "node2",
        "stores deployed with TLS, then d0 of node2 is given a certificate that has expired",
        certificate.plant,
        certificate.unplant,
        besides=frozenset({"breakers open"}),
        inventory=certificate.inventory,
    ),
    Fault(
        "full-store",
        "store.capacity",
        "node2",
        "a file takes the drive of d0 but for one part in a hundred",
        machine.fill_the_drive,
        machine.empty_the_drive,
    ),
    Fault(
        "clock-skew",
        "host.clock",
        "node2",
        "imitated, for nodes have this machine's clock: `date` on the node tells 30 s more",
        machine.skew_the_clock,
        machine.right_the_clock,
    ),
    Fault(
        "wrong-numa",
        "host.numa",
        "node2",
        "a drop-in binds the store of d1 to CPU 0, which neither inventory nor NUMA map does",
        services.bind_to_a_cpu,
        services.unbind,
    ),
    Fault(
        "engine-without-connector",
        "engine.connector",
        "node2",
        "the engine's configuration loses its kv-transfer-config, and the engine is restarted",
        services.no_connector,
        services.own_connector,
        besides=frozenset({"node2: no engine registered"}),
    ),
)
