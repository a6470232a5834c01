"""The cluster model from its JSON document, with errors that name the place in the document."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from kvstrata.cluster import load_serving as serving
from kvstrata.cluster.at import At, InvalidClusterError, path_of
from kvstrata.cluster.load_serving import numa
from kvstrata.cluster.model import (
    Cluster,
    LMCache,
    Model,
    Mount,
    Node,
    Ssh,
    Store,
    StoreEngine,
    Tier,
    TiersPolicy,
    VerifySettings,
)
from kvstrata.cluster.serving import Profile
from kvstrata.cluster.settings import Limits, Prices, ThroughputSettings

SCHEMA = 2


def load(path: Path) -> Cluster:
    """Read the document in `path`; InvalidClusterError when it can't be read or isn't one."""
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise InvalidClusterError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidClusterError(f"{path}: not JSON: {error}") from error
    return parse(document)


def parse(document: object) -> Cluster:
    """The cluster that a decoded document describes; InvalidClusterError when it doesn't."""
    root = At("", document)
    schema = root["schema"].integer()
    if schema != SCHEMA:
        raise InvalidClusterError(f"schema: {schema}, this version of kvstrata reads {SCHEMA}")
    nodes = tuple(root["nodes"].each(_node))
    if not nodes:
        raise InvalidClusterError("nodes: empty, at least one node is needed")
    _refuse_duplicates(nodes)
    return Cluster(
        site=root["site"].text(),
        profile=root["profile"].choice(Profile),
        accelerator=root["accelerator"].text(),
        model=_model(root["model"]),
        nodes=nodes,
        verify=_verify(root["verify"]),
        prices=root.get("prices", None).optional(_prices),
        edge=root["edge"].optional(serving.edge),
        firewall=root["firewall"].optional(serving.firewall),
    )


def _model(at: At) -> Model:
    return Model(
        name=at["name"].text(),
        path=at["path"].text(),
        max_model_len=at["max_model_len"].integer(1),
        dtype=at["dtype"].text(),
        kv_dtype=at.get("kv_dtype", "auto").text(),
        tensor_parallel=at.get("tensor_parallel", 1).integer(1),
        revision=at["revision"].text() if at.has("revision") else "",
    )


def _ssh(at: At) -> Ssh:
    return Ssh(
        host=at["host"].text(),
        port=at["port"].port(),
        user=at["user"].text(),
        key=at["key"].optional(path_of),
        known_hosts=at["known_hosts"].optional(path_of),
        become=at["become"].flag(),
    )


def _store(at: At) -> Store:
    return Store(
        drive=at["drive"].text(),
        unit=at["unit"].text(),
        engine=at["engine"].choice(StoreEngine),
        host=at["host"].text(),
        port=at["port"].port(),
        password=at["password"].text(),
        tier=at["tier"].choice(Tier),
        capacity_bytes=at["capacity_bytes"].integer(1),
        config_path=at.get("config_path", None).optional(At.text),
        tls_port=at.get("tls_port", None).optional(At.port),
        tls_ca=at.get("tls_ca", None).optional(At.text),
        numa=at.get("numa", None).optional(numa),
    )


def _lmcache(at: At) -> LMCache:
    return LMCache(
        unit=at["unit"].text(),
        zmq_port=at["zmq_port"].port(),
        http_port=at["http_port"].port(),
        chunk_size=at["chunk_size"].integer(1),
        namespace=at["namespace"].optional(At.text),
        l1_gib=at.get("l1_gib", None).optional(At.amount),
        min_load_gbps=at.get("min_load_gbps", 0.0).amount(),
        policy=at.get("policy", {"name": "all"}).mapping(),
        numa=at.get("numa", None).optional(numa),
    )


def _mount(at: At) -> Mount:
    return Mount(
        path=at["path"].text(),
        fstype=at["fstype"].text(),
        device=at.get("device", None).optional(At.text),
        devices=tuple(at.get("devices", []).each(At.text)),
    )


def _node(at: At) -> Node:
    return Node(
        name=at["name"].text(),
        ssh=_ssh(at["ssh"]),
        units=tuple(at["units"].each(At.text)),
        mounts=tuple(at["mounts"].each(_mount)),
        stores=tuple(at["stores"].each(_store)),
        lmcache=at["lmcache"].optional(_lmcache),
        engines=tuple(at["engines"].each(serving.engine)),
        router=at["router"].optional(serving.router),
        gpus=at.get("gpus", 0).integer(),
        edge=at["edge"].optional(serving.edge_listener),
        etcd=at["etcd"].optional(serving.etcd),
    )


def _verify(at: At) -> VerifySettings:
    return VerifySettings(
        tiers=at["tiers"].choice(TiersPolicy),
        prompt_tokens=at["prompt_tokens"].integer(1),
        timeout_s=at["timeout_s"].seconds(),
        state_dir=path_of(at["state_dir"]),
        limits=_limits(at.get("limits", {})),
        throughput=_throughput(at.get("throughput", {})),
    )


def _limits(at: At) -> Limits:
    at.only(frozenset(field.name for field in fields(Limits)))
    given = {name: at[name].share() if name.endswith("_share") else at[name].amount() for name in at.mapping()}
    return Limits(**given)


def _throughput(at: At) -> ThroughputSettings:
    at.only(frozenset(field.name for field in fields(ThroughputSettings)))
    readers: dict[str, Callable[[At], Any]] = {
        "enabled": At.flag,
        "max_s": At.seconds,
        "tolerance": At.amount,
        **dict.fromkeys(("concurrency", "requests", "prompt_tokens", "output_tokens"), lambda value: value.integer(1)),
    }
    return ThroughputSettings(**{name: readers.get(name, _bound)(at[name]) for name in at.mapping()})


def _bound(at: At) -> float | None:
    return at.optional(At.seconds)


def _prices(at: At) -> Prices:
    return Prices(gpu_hour=at["gpu_hour"].amount(), currency=at.get("currency", "USD").text())


def _refuse_duplicates(nodes: tuple[Node, ...]) -> None:
    seen: dict[str, int] = {}
    for index, node in enumerate(nodes):
        if node.name in seen:
            raise InvalidClusterError(f"nodes[{index}].name: {node.name!r} is nodes[{seen[node.name]}] already")
        seen[node.name] = index
