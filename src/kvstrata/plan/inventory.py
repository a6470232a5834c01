"""Node and deployment from an Ansible inventory: what is set there, on hardware that it does not describe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from kvstrata.cluster import Cluster, Store, Tier
from kvstrata.cluster import Node as ClusterNode
from kvstrata.plan.config_json import read_config
from kvstrata.plan.deployment import Deployment
from kvstrata.plan.nodes import GIB, Drive, Node
from kvstrata.plan.presets import MODELS, guessed, model
from kvstrata.plan.reading import BadInputError
from kvstrata.plan.shape import Shape

_BYTES = {"float32": 4.0, "float": 4.0, "bfloat16": 2.0, "float16": 2.0, "half": 2.0}


@dataclass(frozen=True)
class FromInventory:
    """What an inventory comes to, and what a reader must know of it."""

    node: Node
    deployment: Deployment
    notes: tuple[str, ...]


def shape_of(cluster: Cluster, given: Shape | None) -> tuple[Shape, tuple[str, ...]]:
    """Return the shape of the site's model: as given, from its folder if that is here too, or by its name.

    Raises:
        BadInputError: when it is none of them.
    """
    folder = Path(cluster.model.path)
    notes: tuple[str, ...] = ()
    known = guessed(cluster.model.name)
    if given is not None:
        shape = given
    elif (folder / "config.json").is_file():
        shape = read_config(folder)
    elif known:
        shape = model(known)
        notes = (f"{folder}/config.json is not on this machine: {cluster.model.name} is taken for {known}",)
    else:
        allowed = f"--model with its config.json: {folder} is not on this machine, and the name is none of "
        raise BadInputError("kvstrata_model", cluster.model.name, allowed + ", ".join(MODELS))
    return typed(shape, cluster.model.dtype), notes


def typed(shape: Shape, dtype: str) -> Shape:
    """Return the shape as vLLM's --dtype makes it: other activations, and other weights if they are not quantized."""
    if dtype not in _BYTES or _BYTES[dtype] == shape.value_bytes:
        return shape
    size = _BYTES[dtype]
    linear = size if shape.linear_bytes == shape.value_bytes else shape.linear_bytes
    expert = size if shape.expert_bytes == shape.value_bytes else shape.expert_bytes
    compute = shape.compute if shape.compute == "fp8" else "fp32" if size == 4 else "bf16"
    return replace(shape, value_bytes=size, linear_bytes=linear, expert_bytes=expert, compute=compute)


def from_cluster(cluster: Cluster, hardware: Node, given: Shape | None) -> FromInventory:
    """Return the first node with a cache: drives, GPUs and sizes of the inventory, figures of `hardware`.

    Raises:
        BadInputError: for an inventory without LMCache, or with drives where `hardware` has none.
    """
    cached = [node for node in cluster.nodes if node.lmcache]
    if not cached:
        raise BadInputError("inventory", cluster.site, "a site with LMCache on its nodes")
    shape, notes = shape_of(cluster, given)
    first = cached[0]
    others = [node.name for node in cached[1:] if _layout(node) != _layout(first)]
    if others:
        notes += (f"planned is {first.name}; differently set up: {', '.join(others)}",)
    stand_ins = [store.drive for store in first.stores if store.tier is Tier.DRAM]
    if stand_ins:
        notes += (f"NOT AN SSD TIER: redis-server stands in on {', '.join(stand_ins)}; judged as if it were the drive",)
    cache = first.lmcache
    assert cache is not None  # noqa: S101 - chosen by that
    drives = tuple(_drive(store, hardware) for store in first.stores)
    gpus = first.gpus or hardware.gpus
    return FromInventory(
        node=replace(hardware, name=first.name, gpus=gpus, drives=drives),
        deployment=Deployment(
            shape=shape,
            nodes=len(cached),
            tensor_parallel=cluster.model.tensor_parallel,
            replicas=len(first.engines) or None,
            kv_dtype=cluster.model.kv_dtype,
            chunk_tokens=cache.chunk_size,
            dram_cache_gib=cache.l1_gib,
            min_load_gbps=cache.min_load_gbps,
            accelerator=cluster.accelerator,
            write_policy=cache.policy,
        ),
        notes=notes,
    )


def _layout(node: ClusterNode) -> object:
    stores = [(store.drive, store.capacity_bytes) for store in node.stores]
    return stores, len(node.engines), node.gpus, node.lmcache and node.lmcache.l1_gib


def _drive(store: Store, hardware: Node) -> Drive:
    if not hardware.drives:
        raise BadInputError("node.drives", [], f"figures of the inventory's drives, {store.drive} among them")
    like = next((drive for drive in hardware.drives if drive.name == store.drive), hardware.drives[0])
    # Caches get three quarters of store_gib: playbooks/vars/roles.yml.
    return replace(like, name=store.drive, store_gib=max(1, round(store.capacity_bytes / 0.75 / GIB)))
