"""The stores of a host: one for each drive, each with its configuration file and what it must report of itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from kvstrata.kvrocks.affinity import drop_in
from kvstrata.kvrocks.config import addresses, directives
from kvstrata.kvrocks.directives import live_names

CONFIGURATIONS = "/etc/kvstrata/kvrocks"
DROP_IN = "/etc/systemd/system/kvrocks@{drive}.service.d/affinity.conf"
DATA = "/var/lib/kvstrata/drives/{drive}/kvrocks"
SOCKETS = "/run/kvstrata/kvrocks"
# systemd hands the files to the store alone; they can stay readable for root alone.
CREDENTIALS = "/run/credentials/kvrocks@{drive}.service"

_HEAD = "# Written by Ansible, role kvrocks. What is changed here by hand is lost at its next run.\n"
_BARE = re.compile(r"[\w.:/+-]+", re.ASCII)
_REDIS_LIVE = frozenset({"maxmemory", "maxmemory-policy", "appendonly", "maxclients", "save"})


@dataclass(frozen=True)
class Settings:
    """What all stores of a host share; the fields are the role's variables without their prefix."""

    engine: str
    profile: str
    workers: int
    config: Mapping[str, Any]
    bind: str
    bind_also: Sequence[str]
    unix_socket: bool
    tls: Mapping[str, Any]
    numa_policy: str
    redis_maxmemory_mib: int


@dataclass(frozen=True)
class Store:
    """One store, as the modules of the role take it."""

    drive: str
    unit: str
    host: str
    port: int
    password: str = field(repr=False)
    path: str
    conf: str = field(repr=False)
    """The text of its configuration file."""
    config: Mapping[str, str]
    """Every directive in it but the password, as CONFIG GET reports it."""
    live: Sequence[str]
    """Those that CONFIG SET changes."""
    drop_in: str
    """The text of its unit's drop-in, or nothing."""
    drop_in_path: str


def stores(instances: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the stores of a host.

    Args:
        instances: for each drive: drive, host, port, password and max_db_size_gib.
        settings: the fields of Settings.
    """
    known = Settings(**settings)
    return [asdict(_store(number, instance, known)) for number, instance in enumerate(instances)]


def _store(number: int, instance: Mapping[str, Any], settings: Settings) -> Store:
    drive = str(instance["drive"])
    own = {
        "bind": addresses(settings.bind, list(settings.bind_also)),
        "port": str(instance["port"]),
        "dir": DATA.format(drive=drive),
        "daemonize": "no",
        "supervised": "no",
    }
    if settings.unix_socket:
        # Whoever may connect must still know the password, as on the network.
        own |= {"unixsocket": f"{SOCKETS}/{drive}.sock", "unixsocketperm": "777"}
    if settings.tls:
        own |= _tls(settings.tls, number, CREDENTIALS.format(drive=drive))
    if settings.engine == "redis":
        config = own | _redis(settings)
        live = [name for name in config if name in _REDIS_LIVE]
    else:
        own |= {"log-dir": "stdout", "max-db-size": str(instance["max_db_size_gib"])}
        config = own | directives(settings.profile, settings.workers, settings.config)
        live = live_names(config)
    password = str(instance["password"])
    return Store(
        drive=drive,
        unit=f"kvrocks@{drive}.service",
        host=str(instance["host"]),
        port=int(instance["port"]),
        password=password,
        path=f"{CONFIGURATIONS}/{drive}.conf",
        conf=render({**config, "requirepass": password}),
        config=config,
        live=live,
        drop_in=drop_in(instance, settings.numa_policy),
        drop_in_path=DROP_IN.format(drive=drive),
    )


def _tls(tls: Mapping[str, Any], number: int, credentials: str) -> dict[str, str]:
    found = {
        "tls-port": str(int(tls["first_port"]) + number),
        "tls-cert-file": f"{credentials}/tls-cert",
        "tls-key-file": f"{credentials}/tls-key",
        "tls-auth-clients": str(tls.get("auth_clients") or "no"),
    }
    if tls.get("ca"):
        found["tls-ca-cert-file"] = f"{credentials}/tls-ca"
    return found


def _redis(settings: Settings) -> dict[str, str]:
    return {
        "save": "",
        "appendonly": "no",
        "maxclients": "10000",
        "maxmemory": str(int(settings.redis_maxmemory_mib) << 20),
        # The client bounds what it stores, by an index in the store itself: an eviction there would break it.
        "maxmemory-policy": "noeviction",
    }


def render(config: Mapping[str, str]) -> str:
    """Return the text of a configuration file."""
    return _HEAD + "".join(f"{name} {_value(name, value)}\n" for name, value in config.items())


def _value(name: str, value: str) -> str:
    """Return a value as both servers read it: an unquoted "#" would cut it, and addresses are several words."""
    if name == "bind" or _BARE.fullmatch(value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
