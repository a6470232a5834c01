"""The adapter's configuration: typed, checked, and refused with the variable, what was given and what is allowed."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Union

from kvstrata.l2.names import checked_namespace
from kvstrata.l2.placement import endpoint_id

MIB = 1 << 20
GIB = 1 << 30
_DAY_S = 86400
PLACEMENTS = ("fleet", "local_first")


@dataclass(frozen=True)
class EndpointConfig:
    """One store: a Kvrocks, Redis or Valkey."""

    host: str
    """Its address on the network between nodes; with the port it is the endpoint's name, the same on every node."""
    port: int
    """Its port."""
    capacity_bytes: int
    """Most that its chunks may take together, of all namespaces; the same on every node."""
    node: str = ""
    """Name of the node it is on; for `local_first`, and for who evicts."""
    user: str = ""
    """For servers with users; not needed where only a password is set."""
    password: str = field(default="", repr=False)
    """Empty for none."""
    unix: str = ""
    """Path of its unix socket; used where that exists, so on the store's own node."""
    tls_ca: str = ""
    """Path of the CA's certificate: with it the connection is encrypted and the server's certificate checked."""

    @property
    def name(self) -> str:
        """host:port, the name that placement hashes: the same on every node."""
        return f"{self.host}:{self.port}"

    @property
    def address(self) -> Union[tuple[str, int], str]:
        """Where to connect from this node."""
        return self.unix if self.unix and Path(self.unix).exists() else (self.host, self.port)

    def rules(self) -> list[tuple[str, bool, str]]:
        """Return (field, whether it is in order, what is allowed); never about the password itself."""
        return [
            ("host", bool(self.host) and not set(self.host) & set(" \t\r\n/@"), "a host's name or address"),
            ("port", 1 <= self.port <= 65535, "1 to 65535"),
            ("capacity_bytes", self.capacity_bytes > 0, "more than 0 bytes"),
            ("user", not self.user or bool(self.password), "empty without a password"),
        ]

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context, or None for a plain connection and for the unix socket."""
        if not self.tls_ca or isinstance(self.address, str):
            return None
        return ssl.create_default_context(cafile=self.tls_ca)


@dataclass(frozen=True)
class TierConfig:
    """Everything that a Tier needs. Defaults are measured or argued in docs/l2.md."""

    endpoints: tuple[EndpointConfig, ...]
    """Every store of the cluster."""
    namespace: str
    """Goes into every key: 1 to 64 of A-Z, a-z, 0-9, `_`, `.` and `-`."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    """What the namespace stands for, for `kvstrata cache ls`; not used otherwise."""
    local_node: str = ""
    """Name of this node; on its own endpoints this process evicts."""
    placement: str = "fleet"
    """`fleet` or `local_first`."""
    stripe_width: int = 1
    """Endpoints over which the pieces of one chunk are spread; 0 is all of them."""
    piece_bytes: int = MIB
    """Size of a piece, 4 KiB to 64 MiB; chunks written with another size stay readable."""
    load_connections: int = 0
    """Most connections to an endpoint for loads, 1 to 64; each is a thread that ends when idle. 0 takes 4 to 16: as
    many as make 64 over all endpoints, and not more than twice the processors."""
    store_connections: int = 4
    """Most connections to an endpoint for stores."""
    pipeline_depth: int = 2
    """Pieces asked for at once on a connection."""
    connect_timeout_s: float = 1.0
    """Seconds to connect and authenticate."""
    stall_s: float = 2.0
    """No byte for so long, and an endpoint counts as hung."""
    lookup_deadline_s: float = 2.0
    """Seconds after which a lookup answers with what it has."""
    load_deadline_s: float = 10.0
    """Seconds after which what is not loaded is a miss."""
    store_deadline_s: float = 30.0
    """Seconds after which what is not stored is dropped."""
    store_queue_bytes: int = GIB
    """Chunks that may wait to be stored on one endpoint; more are dropped, so that LMCache's memory is not held up."""
    evict_from: float = 0.97
    """Share of the capacity at which eviction begins ..."""
    evict_to: float = 0.92
    """... and at which it ends."""
    compact_share: float = 0.05
    """COMPACT is asked for after so much of the capacity was evicted or stored since the last time."""
    tick_s: float = 1.0
    """How often stamps are written and the use of the stores is looked at."""
    policy: Mapping[str, Any] = field(default_factory=lambda: {"name": "all"})
    """What is written, by name and options: offload.md."""
    min_load_gbps: float = 0.0
    """Where loading falls below this many 1e9 bytes/s, lookups are cut, and none waits longer than computing takes; 0
    never cuts (breakeven.py)."""

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ValueError: naming every such field, what was given and what is allowed.
        """
        wrong = [
            f"{name} is {getattr(self, name)!r}; allowed: {allowed}" for name, ok, allowed in self._rules() if not ok
        ]
        wrong += [
            f"endpoints[{number}].{name} is {getattr(endpoint, name)!r}; allowed: {allowed}"
            for number, endpoint in enumerate(self.endpoints)
            for name, ok, allowed in endpoint.rules()
            if not ok
        ]
        names = [endpoint.name for endpoint in self.endpoints]
        wrong += [
            f"endpoints names {name} twice; allowed: each once"
            for name in sorted({n for n in names if names.count(n) > 1})
        ]
        if not wrong and len({endpoint_id(name) for name in names}) < len(names):
            wrong.append(f"endpoints is {names}; allowed: names of which no two have the same placement.endpoint_id")
        try:
            checked_namespace(self.namespace)
        except ValueError as error:
            wrong.append(str(error))
        if wrong:
            raise ValueError("; ".join(wrong))

    def _rules(self) -> list[tuple[str, bool, str]]:
        return [
            ("endpoints", bool(self.endpoints), "at least one"),
            ("placement", self.placement in PLACEMENTS, " or ".join(PLACEMENTS)),
            ("local_node", self.placement == "fleet" or bool(self.local_node), "a node's name with local_first"),
            ("stripe_width", 0 <= self.stripe_width <= 255, "0 (all, up to 255) to 255"),
            ("piece_bytes", 4096 <= self.piece_bytes <= 64 * MIB, "4096 to 67108864 bytes"),
            ("load_connections", 0 <= self.load_connections <= 64, "1 to 64, or 0"),
            ("store_connections", 1 <= self.store_connections <= 64, "1 to 64"),
            ("pipeline_depth", 1 <= self.pipeline_depth <= 64, "1 to 64"),
            *[
                (name, 0 < getattr(self, name) <= _DAY_S, f"more than 0 seconds, at most {_DAY_S}")
                for name in (
                    "connect_timeout_s",
                    "stall_s",
                    "lookup_deadline_s",
                    "load_deadline_s",
                    "store_deadline_s",
                    "tick_s",
                )
            ],
            ("store_queue_bytes", self.store_queue_bytes >= self.piece_bytes, "at least one piece"),
            ("evict_from", 0 < self.evict_from <= 1, "more than 0, at most 1"),
            ("evict_to", 0 < self.evict_to < self.evict_from, "more than 0, less than evict_from"),
            ("compact_share", 0 < self.compact_share <= 1, "more than 0, at most 1"),
            ("policy", "name" in self.policy, "a mapping with a name"),
            ("min_load_gbps", 0 <= self.min_load_gbps <= 1e6, "0 (off) to 1e6"),
        ]

    @property
    def loads_per_endpoint(self) -> int:
        """`load_connections`, or what 0 stands for here."""
        if self.load_connections:
            return self.load_connections
        return max(4, min(16, 64 // len(self.endpoints), 2 * (os.cpu_count() or 1)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TierConfig:
        """Build the configuration from JSON.

        `passwords_file`, beside the fields, is the path of a JSON object that maps each endpoint's name to its
        password: for a configuration that others may read.

        Raises:
            ValueError: for an unknown or missing field, a wrong type, a value that cannot work, or an endpoint
                without a password in `passwords_file`.
        """
        if isinstance(values, Mapping) and "passwords_file" in values:
            values = _with_passwords(values, str(values["passwords_file"]))
        given = _checked(cls, "", values)
        entries = given["endpoints"]
        if not isinstance(entries, (list, tuple)):
            raise ValueError(f"endpoints is a {type(entries).__name__}; allowed: a list")
        given["endpoints"] = tuple(
            EndpointConfig(**_checked(EndpointConfig, f"endpoints[{number}].", entry))
            for number, entry in enumerate(entries)
        )
        return cls(**given)


def _with_passwords(values: Mapping[str, Any], path: str) -> dict[str, Any]:
    try:
        passwords = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        # The file's text is not in the message.
        raise ValueError(f"passwords_file {path} cannot be read: {type(error).__name__}") from None
    if not isinstance(passwords, dict):
        raise ValueError(f"passwords_file {path} holds a {type(passwords).__name__}; allowed: a JSON object")
    entries, endpoints = values.get("endpoints", ()), []
    if not isinstance(entries, (list, tuple)) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ValueError("endpoints is not what it must be; allowed: a list of mappings")
    for entry in entries:
        name = f"{entry.get('host')}:{entry.get('port')}"
        if name not in passwords:
            raise ValueError(f"passwords_file {path} has no password for the endpoint {name}")
        endpoints.append({**entry, "password": passwords[name]})
    rest = {name: value for name, value in values.items() if name != "passwords_file"}
    return {**rest, "endpoints": endpoints}


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "Mapping[str, Any]": (Mapping,),
}


def _checked(cls: type, where: str, values: object) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        # Its text is not in the message: it may hold a password.
        given = where.rstrip(".") or "the configuration"
        raise ValueError(f"{given} is a {type(values).__name__}; allowed: a mapping")
    known = {f.name: f for f in fields(cls)}
    required = {
        name for name, f in known.items() if f.name in ("endpoints", "namespace", "host", "port", "capacity_bytes")
    }
    wrong = [f"{where}{name} is unknown; allowed: {', '.join(sorted(known))}" for name in values if name not in known]
    wrong += [f"{where}{name} is missing" for name in sorted(required - set(values))]
    for name, value in values.items():
        types = _TYPES.get(str(known[name].type)) if name in known else None
        if types and (isinstance(value, bool) or not isinstance(value, types)):
            shown = "(not shown)" if name == "password" else repr(value)
            allowed = "a mapping" if types == (Mapping,) else known[name].type
            wrong.append(f"{where}{name} is {shown}; allowed: {allowed}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return dict(values)
