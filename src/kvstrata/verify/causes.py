"""Consequences: a check that another failed check explains is told as one that proves nothing, not as a second fault.

One broken thing is seen from many sides. The report names the thing; what follows from it is NOT CHECKED, with what was
seen, so that nothing is lost. Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from kvstrata.cluster import Cluster, Profile, Store
from kvstrata.verify.check import Check, Status

type Related = Callable[[Cluster, Check, Check], bool]


def same_host(_cluster: Cluster, cause: Check, effect: Check) -> bool:
    """Whether both are of one node."""
    return cause.host == effect.host


def anywhere(_cluster: Cluster, _cause: Check, _effect: Check) -> bool:
    """Whatever the nodes."""
    return True


def same_drive(cluster: Cluster, cause: Check, effect: Check) -> bool:
    """Whether both are of one drive of one node, by its mount, unit, store or name in what is checked."""
    return cause.host == effect.host and bool(_drives(cluster, cause) & _drives(cluster, effect))


def of_store(cluster: Cluster, cause: Check, effect: Check) -> bool:
    """Whether the effect, on whatever node, tells of the store that the cause is about."""
    told = f"{effect.what} {effect.seen}"
    return any(store.address in told for store in _stores(cluster, cause))


def of_engine(cluster: Cluster, cause: Check, effect: Check) -> bool:
    """Whether the effect, on whatever node, tells of the engine that the cause is about."""
    told = f"{effect.what} {effect.seen}"
    node = next((node for node in cluster.nodes if node.name == cause.host), None)
    engines = [engine for engine in (node.engines if node else ()) if engine.unit in cause.what]
    at_home = any(cause.host == effect.host and engine.unit in told for engine in engines)
    return at_home or any(f"{engine.host}:{engine.port}" in told for engine in engines)


def of_gpu(_cluster: Cluster, cause: Check, effect: Check) -> bool:
    """Whether the effect is an engine's unit on the cause's node: nothing else there needs a GPU."""
    return cause.host == effect.host and "vllm@" in effect.what


def of_frontend(cluster: Cluster, _cause: Check, _effect: Check) -> bool:
    """Whether the site's engines are asked through frontends alone."""
    return cluster.profile is Profile.DYNAMO


def _names(cluster: Cluster, check: Check) -> list[tuple[str, tuple[str, ...]]]:
    """Each drive of the check's node, and the words that tell of it."""
    found = []
    for node in cluster.nodes:
        if node.name != check.host:
            continue
        for store in node.stores:
            mounts = [mount.path for mount in node.mounts if mount.path.rpartition("/")[2] == store.drive]
            found.append((store.drive, (store.unit, store.address, *mounts)))
        known = {drive for drive, _ in found}
        found += [
            (mount.path.rpartition("/")[2], (mount.path,))
            for mount in node.mounts
            if mount.path.rpartition("/")[2] not in known
        ]
    return found


def _drives(cluster: Cluster, check: Check) -> set[str]:
    words = check.what.replace(",", " ").split()
    return {
        drive for drive, names in _names(cluster, check) if drive in words or any(name in check.what for name in names)
    }


def _stores(cluster: Cluster, check: Check) -> list[Store]:
    drives = _drives(cluster, check)
    return [
        store for node in cluster.nodes if node.name == check.host for store in node.stores if store.drive in drives
    ]


@dataclass(frozen=True)
class Rule:
    """When `cause` failed, failed checks whose id is one of `effects` (or `layer.*`) follow from it where `related`."""

    cause: str
    effects: tuple[str, ...]
    related: Related
    about: str = ""
    """Only for causes whose `what` holds this."""

    def explains(self, cluster: Cluster, cause: Check, effect: Check) -> bool:
        """Whether this rule makes `effect` a consequence of `cause`."""
        return (
            cause is not effect
            and cause.id == self.cause
            # What could not be looked at explains nothing, but for a node that is out of reach.
            and (cause.status is Status.FAIL or cause.id == "host.ssh")
            and self.about in cause.what
            and any(_matches(pattern, effect.id) for pattern in self.effects)
            and self.related(cluster, cause, effect)
        )


def _matches(pattern: str, check_id: str) -> bool:
    return check_id.startswith(pattern[:-1]) if pattern.endswith("*") else check_id == pattern


_SLOWED = ("throughput.*",)
_ROUTED = ("router.locality", "edge.*", *_SLOWED)
# What is asked of an engine itself, and not of the status server of its worker.
_ASKED = ("engine.model", "engine.tokens", "engine.logprobs", "engine.connector", "engine.weights", "tiers.*")
_OF_STORE = ("store.*", "cache.breaker", "cache.l2", "cache.adapter")

# A cause stands above its effects: from the bottom of the stack up, so that no two can explain each other.
RULES: Final[tuple[Rule, ...]] = (
    Rule("host.ssh", ("store.fabric", "cache.closed", "router.workers", "edge.virtual_address", *_ROUTED), anywhere),
    Rule("host.xid", ("host.driver",), same_host),
    Rule("host.mount", ("host.unit", "host.drive_speed", "host.drive_health", "store.*"), same_drive),
    Rule("host.mount", _OF_STORE, of_store),
    Rule("host.driver", ("host.unit",), of_gpu),
    Rule("host.fabric_manager", ("host.unit",), of_gpu),
    Rule("host.unit", ("store.*",), same_drive, about="kvrocks@"),
    Rule("host.unit", _OF_STORE, of_store, about="kvrocks@"),
    Rule("host.unit", ("cache.*",), same_host, about="lmcache"),
    Rule("host.unit", ("engine.*", "cache.engines", "router.workers"), of_engine, about="vllm@"),
    Rule("host.unit", ("cache.engines",), same_host, about="vllm@"),
    Rule("host.unit", ("host.etcd",), same_host, about="etcd"),
    Rule("host.unit", ("router.*", *_ROUTED), anywhere, about="etcd"),
    Rule("host.unit", ("router.events", "router.locality", *_SLOWED), anywhere, about="dynamo-events"),
    Rule("host.unit", ("router.*",), same_host, about="vllm-router"),
    Rule("host.unit", ("router.*",), same_host, about="dynamo-frontend"),
    Rule("host.unit", _ROUTED, anywhere, about="vllm-router"),
    Rule("host.unit", _ROUTED, anywhere, about="dynamo-frontend"),
    Rule("host.unit", _ASKED, of_frontend, about="dynamo-frontend"),
    Rule("host.unit", ("edge.*",), same_host, about="kvstrata-edge"),
    Rule("host.unit", ("edge.virtual_address",), anywhere, about="kvstrata-"),
    Rule("host.unit", ("router.locality", *_SLOWED), anywhere),
    Rule("host.link", ("store.fabric", "cache.adapter", "cache.breaker", "cache.l2", *_SLOWED), anywhere),
    Rule("host.drive_speed", _SLOWED, anywhere),
    Rule("host.numa", _SLOWED, anywhere),
    Rule("store.capacity", ("store.roundtrip", "store.stalls"), same_drive),
    Rule("store.capacity", ("cache.adapter", "cache.l2", "cache.breaker"), of_store),
    Rule("store.auth", ("store.roundtrip", "store.config", "store.engine", "store.dir", "store.stalls"), same_drive),
    Rule("store.auth", ("store.fabric", "cache.adapter"), of_store),
    Rule("store.certificate", ("cache.adapter", "cache.l2", "cache.breaker"), of_store),
    Rule("store.roundtrip", ("cache.adapter",), of_store),
    Rule("store.capacity", ("tiers.*",), anywhere),
    Rule("store.certificate", ("tiers.*",), anywhere),
    Rule("cache.health", ("cache.*",), same_host),
    Rule("cache.breaker", ("tiers.*",), anywhere),
    Rule("cache.identity", ("tiers.*",), anywhere),
    Rule("engine.health", ("engine.*",), of_engine),
    Rule("engine.health", ("cache.engines",), same_host),
    Rule("engine.health", ("router.workers", *_ROUTED), anywhere),
    Rule("engine.connector", ("cache.engines",), same_host),
    Rule("engine.connector", ("router.locality", "tiers.*"), anywhere),
    Rule("engine.weights", ("tiers.*",), anywhere),
    Rule("host.etcd", ("router.*", *_ROUTED), anywhere),
    Rule("router.health", ("router.*",), same_host),
    Rule("router.health", _ROUTED, anywhere),
    Rule("router.health", _ASKED, of_frontend),
    Rule("router.workers", ("router.events",), same_host),
    Rule("router.workers", _ROUTED, anywhere),
    Rule("router.workers", _ASKED, of_frontend),
    Rule("router.policy", ("router.events",), same_host),
    Rule("router.policy", ("router.locality", *_SLOWED), anywhere),
    Rule("router.events", ("router.locality", *_SLOWED), anywhere),
    Rule("router.locality", _SLOWED, anywhere),
    Rule("edge.health", ("edge.*",), same_host),
    Rule("edge.health", ("edge.virtual_address",), anywhere),
)


def with_causes(cluster: Cluster, checks: Sequence[Check], rules: Iterable[Rule] = RULES) -> list[Check]:
    """Return the checks in their order, those that follow from another one as NOT CHECKED rows that name it."""
    rules = tuple(rules)
    bad = [check for check in checks if check.bad]
    return [_explained(cluster, check, bad, rules) if check.bad else check for check in checks]


def _explained(cluster: Cluster, check: Check, bad: Sequence[Check], rules: Sequence[Rule]) -> Check:
    for rule in rules:
        for cause in bad:
            if rule.explains(cluster, cause, check):
                seen = f"NOT CHECKED: follows from {cause.id} on {cause.host} ({cause.what}); seen: {check.seen}"
                return replace(check, status=Status.SKIP, seen=seen)
    return check
