"""The cluster model from its JSON document, with errors that name the place in the document."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from kvstrata.cluster.model import (
    Cluster,
    Engine,
    LMCache,
    Model,
    Mount,
    Node,
    Numa,
    Router,
    Ssh,
    Store,
    StoreEngine,
    Tier,
    TiersPolicy,
    VerifySettings,
)
from kvstrata.cluster.settings import Limits, Prices, ThroughputSettings

SCHEMA = 1


class InvalidClusterError(ValueError):
    """The document is not a cluster model; the message names the path in it, never a secret."""


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
    root = _At("", document)
    schema = root["schema"].integer()
    if schema != SCHEMA:
        raise InvalidClusterError(f"schema: {schema}, this version of kvstrata reads {SCHEMA}")
    nodes = tuple(root["nodes"].each(_node))
    if not nodes:
        raise InvalidClusterError("nodes: empty, at least one node is needed")
    _refuse_duplicates(nodes)
    return Cluster(
        site=root["site"].text(),
        profile=root["profile"].text(),
        model=_model(root["model"]),
        nodes=nodes,
        verify=_verify(root["verify"]),
        prices=root.get("prices", None).optional(_prices),
    )


@dataclass(frozen=True)
class _At:
    """A value and where in the document it stands."""

    path: str
    value: Any

    def __getitem__(self, key: str) -> _At:
        path = f"{self.path}.{key}" if self.path else key
        if not isinstance(self.value, dict):
            raise InvalidClusterError(f"{self.path or 'document'}: expected an object, got {_kind(self.value)}")
        if key not in self.value:
            raise InvalidClusterError(f"{path}: missing")
        return _At(path, self.value[key])

    def get(self, key: str, default: object) -> _At:
        """The value of a key that older documents lack."""
        return self[key] if self.has(key) else _At(f"{self.path}.{key}", default)

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return isinstance(self.value, dict) and key in self.value

    def _expect(self, wanted: type | tuple[type, ...], name: str) -> Any:
        # bool is an int in Python, but never a port.
        wrong_bool = isinstance(self.value, bool) and wanted is not bool
        if wrong_bool or not isinstance(self.value, wanted):
            # The kind and not the value: the value may be a password.
            raise InvalidClusterError(f"{self.path}: expected {name}, got {_kind(self.value)}")
        return self.value

    def text(self) -> str:
        text: str = self._expect(str, "a string")
        if not text:
            raise InvalidClusterError(f"{self.path}: empty")
        return text

    def integer(self, low: int = 0, high: int | None = None) -> int:
        number: int = self._expect(int, "a whole number")
        if number < low or (high is not None and number > high):
            allowed = f"{low}..{high}" if high is not None else f"at least {low}"
            raise InvalidClusterError(f"{self.path}: {number}, allowed is {allowed}")
        return number

    def port(self) -> int:
        return self.integer(1, 65535)

    def seconds(self) -> float:
        number = float(self._expect((int, float), "a number of seconds"))
        if number <= 0:
            raise InvalidClusterError(f"{self.path}: {number:g}, allowed is more than 0")
        return number

    def amount(self) -> float:
        number = float(self._expect((int, float), "a number"))
        if number < 0:
            raise InvalidClusterError(f"{self.path}: {number:g}, allowed is 0 or more")
        return number

    def share(self) -> float:
        number = self.amount()
        if number > 1:
            raise InvalidClusterError(f"{self.path}: {number:g}, allowed is 0 to 1")
        return number

    def mapping(self) -> dict[str, Any]:
        found: dict[str, Any] = self._expect(dict, "an object")
        return found

    def flag(self) -> bool:
        flag: bool = self._expect(bool, "true or false")
        return flag

    def choice[E: StrEnum](self, kind: type[E]) -> E:
        text = self.text()
        try:
            return kind(text)
        except ValueError:
            allowed = ", ".join(member.value for member in kind)
            raise InvalidClusterError(f"{self.path}: {text!r}, allowed is one of {allowed}") from None

    def only(self, names: frozenset[str]) -> None:
        """Refuse a key that nothing reads: it would be a limit that nobody keeps."""
        unknown = sorted(self.mapping().keys() - names)
        if unknown:
            raise InvalidClusterError(f"{self.path}.{unknown[0]}: unknown, allowed are {', '.join(sorted(names))}")

    def optional[T](self, read: Callable[[_At], T]) -> T | None:
        return None if self.value is None else read(self)

    def each[T](self, read: Callable[[_At], T]) -> list[T]:
        items = self._expect(list, "a list")
        return [read(_At(f"{self.path}[{index}]", item)) for index, item in enumerate(items)]


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "an object", list: "a list", str: "a string", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _path(at: _At) -> Path:
    return Path(at.text()).expanduser()


def _model(at: _At) -> Model:
    return Model(
        name=at["name"].text(),
        path=at["path"].text(),
        max_model_len=at["max_model_len"].integer(1),
        dtype=at["dtype"].text(),
        kv_dtype=at.get("kv_dtype", "auto").text(),
        tensor_parallel=at.get("tensor_parallel", 1).integer(1),
        revision=at["revision"].text() if at.has("revision") else "",
    )


def _ssh(at: _At) -> Ssh:
    return Ssh(
        host=at["host"].text(),
        port=at["port"].port(),
        user=at["user"].text(),
        key=at["key"].optional(_path),
        known_hosts=at["known_hosts"].optional(_path),
        become=at["become"].flag(),
    )


def _store(at: _At) -> Store:
    return Store(
        drive=at["drive"].text(),
        unit=at["unit"].text(),
        engine=at["engine"].choice(StoreEngine),
        host=at["host"].text(),
        port=at["port"].port(),
        password=at["password"].text(),
        tier=at["tier"].choice(Tier),
        capacity_bytes=at["capacity_bytes"].integer(1),
        config_path=at.get("config_path", None).optional(_At.text),
        tls_port=at.get("tls_port", None).optional(_At.port),
        tls_ca=at.get("tls_ca", None).optional(_At.text),
        numa=at.get("numa", None).optional(_numa),
    )


def _numa(at: _At) -> Numa:
    return Numa(
        policy=at["policy"].text(),
        node=at.get("node", None).optional(_At.integer),
        cpus=at.get("cpus", None).optional(_At.text),
    )


def _lmcache(at: _At) -> LMCache:
    return LMCache(
        unit=at["unit"].text(),
        zmq_port=at["zmq_port"].port(),
        http_port=at["http_port"].port(),
        chunk_size=at["chunk_size"].integer(1),
        namespace=at["namespace"].optional(_At.text),
        l1_gib=at.get("l1_gib", None).optional(_At.amount),
        min_load_gbps=at.get("min_load_gbps", 0.0).amount(),
        policy=at.get("policy", {"name": "all"}).mapping(),
        numa=at.get("numa", None).optional(_numa),
    )


def _engine(at: _At) -> Engine:
    return Engine(
        unit=at["unit"].text(),
        host=at["host"].text(),
        port=at["port"].port(),
        gpus=tuple(at.get("gpus", []).each(_At.integer)),
        numa=at.get("numa", None).optional(_numa),
    )


def _router(at: _At) -> Router:
    return Router(unit=at["unit"].text(), host=at["host"].text(), port=at["port"].port())


def _mount(at: _At) -> Mount:
    return Mount(
        path=at["path"].text(),
        fstype=at["fstype"].text(),
        device=at.get("device", None).optional(_At.text),
        devices=tuple(at.get("devices", []).each(_At.text)),
    )


def _node(at: _At) -> Node:
    return Node(
        name=at["name"].text(),
        ssh=_ssh(at["ssh"]),
        units=tuple(at["units"].each(_At.text)),
        mounts=tuple(at["mounts"].each(_mount)),
        stores=tuple(at["stores"].each(_store)),
        lmcache=at["lmcache"].optional(_lmcache),
        engines=tuple(at["engines"].each(_engine)),
        router=at["router"].optional(_router),
        gpus=at.get("gpus", 0).integer(),
    )


def _verify(at: _At) -> VerifySettings:
    return VerifySettings(
        tiers=at["tiers"].choice(TiersPolicy),
        prompt_tokens=at["prompt_tokens"].integer(1),
        timeout_s=at["timeout_s"].seconds(),
        state_dir=_path(at["state_dir"]),
        limits=_limits(at.get("limits", {})),
        throughput=_throughput(at.get("throughput", {})),
    )


def _limits(at: _At) -> Limits:
    at.only(frozenset(field.name for field in fields(Limits)))
    given = {name: at[name].share() if name.endswith("_share") else at[name].amount() for name in at.mapping()}
    return Limits(**given)


def _throughput(at: _At) -> ThroughputSettings:
    at.only(frozenset(field.name for field in fields(ThroughputSettings)))
    readers: dict[str, Callable[[_At], Any]] = {
        "enabled": _At.flag,
        "max_s": _At.seconds,
        "tolerance": _At.amount,
        **dict.fromkeys(("concurrency", "requests", "prompt_tokens", "output_tokens"), lambda value: value.integer(1)),
    }
    return ThroughputSettings(**{name: readers.get(name, _bound)(at[name]) for name in at.mapping()})


def _bound(at: _At) -> float | None:
    return at.optional(_At.seconds)


def _prices(at: _At) -> Prices:
    return Prices(gpu_hour=at["gpu_hour"].amount(), currency=at.get("currency", "USD").text())


def _refuse_duplicates(nodes: tuple[Node, ...]) -> None:
    seen: dict[str, int] = {}
    for index, node in enumerate(nodes):
        if node.name in seen:
            raise InvalidClusterError(f"nodes[{index}].name: {node.name!r} is nodes[{seen[node.name]}] already")
        seen[node.name] = index
