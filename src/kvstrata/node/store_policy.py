"""LMCache store policy `rendezvous`: each KV object goes to exactly one of the L2 adapters.

LMCache's own `default` policy writes every object to every adapter, which would multiply the writes by the
number of drives. Lookups need no counterpart: LMCache asks all adapters and merges what they hold.
"""

from __future__ import annotations

from typing import Any

from lmcache.v1.distributed.storage_controllers.store_policy import DefaultStorePolicy, register_store_policy

from kvstrata.node.placement import owner

POLICY_NAME = "rendezvous"


class RendezvousStorePolicy(DefaultStorePolicy):  # type: ignore[misc]  # lmcache ships no types
    """Spread objects over the adapters by rendezvous hashing on the endpoint's address."""

    def select_store_targets(self, keys: list[Any], adapters: list[Any]) -> dict[int, list[Any]]:
        """Return, for each adapter index, the keys that it owns (absent when it owns none)."""
        endpoints = [endpoint_name(adapter.config) for adapter in adapters]
        targets: dict[int, list[Any]] = {}
        for key in keys:
            adapter = adapters[owner(key_bytes(key), endpoints)]
            targets.setdefault(adapter.index, []).append(key)
        return targets


def key_bytes(key: Any) -> bytes:
    """Return the bytes that identify an LMCache ObjectKey, the same on every node and in every process."""
    return f"{key.model_name}@{key.kv_rank}@{key.object_group_id}@{key.cache_salt}@".encode() + bytes(key.chunk_hash)


def endpoint_name(config: Any) -> str:
    """Return the address that names an adapter's endpoint, the same on every node."""
    return ",".join(f"{host}:{port}" for host, port in config.startup_nodes)


def register() -> None:
    """Make `--l2-store-policy rendezvous` known to LMCache; call before it parses its arguments."""
    register_store_policy(POLICY_NAME, RendezvousStorePolicy)
