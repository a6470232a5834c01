"""Where the services of a host run, by its NUMA map (plugins/module_utils/kvstrata_topology.py makes it)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from kvstrata.affinity import directives, drop_in


def working_nodes(numa: Mapping[str, Any]) -> list[int]:
    """Return the nodes with CPUs and memory, where there are at least two; elsewhere nothing is to be placed.

    A node without CPUs is no place for a service's memory: it is a GPU's (Grace Hopper) or a CXL device's.
    """
    nodes = [int(name) for name, node in numa.get("nodes", {}).items() if node["cpus"] and node["memory_gib"] > 0]
    return sorted(nodes) if len(nodes) > 1 else []


def drive_node(numa: Mapping[str, Any], devices: Sequence[str]) -> int | None:
    """Return the node of a drive, or of a RAID0 whose drives are all on one; None where that is not known.

    Args:
        numa: the host's map.
        devices: the drive's paths below /dev/disk/by-id.
    """
    nodes_of = {name: drive["numa_node"] for drive in numa.get("nvme", []) for name in drive["ids"]}
    nodes = {nodes_of.get(PurePosixPath(device).name) for device in devices}
    return _one(nodes, working_nodes(numa))


def gpu_node(numa: Mapping[str, Any], gpus: Sequence[int]) -> int | None:
    """Return the node that all these GPUs are on; None where they are on several, or that is not known.

    GPUs count in the order of their PCI addresses, as nvidia-smi and CUDA_DEVICE_ORDER=PCI_BUS_ID count them.
    """
    nodes = [gpu["numa_node"] for gpu in numa.get("gpus", [])]
    if not gpus or max(gpus) >= len(nodes):
        return None
    return _one({nodes[gpu] for gpu in gpus}, working_nodes(numa))


def _one(nodes: set[int | None], known: Sequence[int]) -> int | None:
    (node, *others) = nodes or {None}
    return node if not others and node in known else None


def place_stores(
    instances: Sequence[Mapping[str, Any]], drives: Sequence[Mapping[str, Any]], numa: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the stores of a host with the node of their drive, where the inventory says nothing of CPUs or node."""
    devices = {drive["name"]: drive.get("devices") or [drive["device"]] for drive in drives}
    placed = []
    for instance in instances:
        given = instance.get("numa_node") is not None or instance.get("cpus") is not None
        node = None if given else drive_node(numa, devices[instance["drive"]])
        placed.append({**instance, "numa_node": node} if node is not None else dict(instance))
    return placed


def place_replicas(replicas: Sequence[Mapping[str, Any]], numa: Mapping[str, Any], policy: str) -> list[dict[str, Any]]:
    """Return the engines of a host, each with the drop-in of its unit: beside its GPUs, where those are on one node."""
    placed = []
    for replica in replicas:
        node = None if policy == "none" else gpu_node(numa, replica.get("gpus") or [])
        lines = [] if node is None else directives([node], policy)
        placed.append({**replica, "drop_in": drop_in(lines)})
    return placed


def cache_directives(numa: Mapping[str, Any], policy: str) -> list[str]:
    """Return the [Service] lines of the cache daemon: its memory from all nodes in turn, its threads anywhere.

    Its DRAM tier is one pool that the GPUs of every node copy from and to, and it can be larger than one node's memory.
    """
    return [] if policy == "none" else directives(working_nodes(numa), policy, cpus_of_nodes=False)
