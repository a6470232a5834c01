"""Filters that render units and ports the same way in every role."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kvstrata.dynamo import environment, environment_file
from kvstrata.firewall import Firewall, render
from kvstrata.kvrocks.store import stores
from kvstrata.l2.config import GIB, TierConfig
from kvstrata.l2.names import namespace_of
from kvstrata.l2.policy import make_policy
from kvstrata.units import arguments, flags, hardening, restart_backoff

DRIVES = "/var/lib/kvstrata/drives"
"""Where the drives are mounted. Without a "-" in it, which systemd's unit names would have to escape."""


def port_of(entry: Mapping[str, Any], variable: str, unit: str) -> dict[str, Any]:
    """Return what preflight wants to know of a port: its number, the variable that sets it, the unit that owns it."""
    return {"port": entry["port"], "variable": variable, "unit": unit.format(**entry)}


def with_mount(drive: Mapping[str, Any], fstype: str = "xfs") -> dict[str, Any]:
    """Return a drive with where and as what it is mounted, and the name of its mount unit."""
    mount = f"{DRIVES}/{drive['name']}"
    return {**drive, "mount": mount, "fstype": fstype, "unit": mount.strip("/").replace("/", "-") + ".mount"}


def mount_of(drive: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the verifier wants to know of a drive's mount."""
    return {
        "path": drive["mount"],
        "fstype": drive["fstype"],
        "device": drive.get("device"),
        "devices": list(drive.get("devices") or []),
    }


def endpoint_of(store: Mapping[str, Any]) -> dict[str, Any]:
    """Return what kvstrata.l2 is told of a store; its password travels apart from it."""
    endpoint = {"host": store["host"], "port": store["port"], "node": store.get("node", "")}
    endpoint |= {name: store[name] for name in ("unix", "tls_ca") if store.get(name)}
    return {**endpoint, "capacity_bytes": int(float(store["capacity_gib"]) * GIB)}


def l2_problem(config: Mapping[str, Any] | None) -> str:
    """Return what is wrong with a configuration of kvstrata.l2, or nothing."""
    if config is None:
        return ""
    try:
        make_policy(**TierConfig.from_dict(config).policy)
    except (ValueError, TypeError) as error:
        return str(error)
    return ""


def below(files: Sequence[Mapping[str, Any]], folder: str) -> list[dict[str, Any]]:
    """Return files as kvstrata_files takes them, below another folder than the root."""
    return [{**file, "path": folder.rstrip("/") + file["path"]} for file in files]


def firewall(given: Mapping[str, Any]) -> str:
    """Return the rules of nftables for the fields of kvstrata.firewall.Firewall."""
    return render(Firewall(**given))


class FilterModule:
    """What Ansible looks for in a filter plugin."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "kvstrata_hardening": hardening,
            "kvstrata_restart_backoff": restart_backoff,
            "kvstrata_arguments": arguments,
            "kvstrata_flags": flags,
            "kvstrata_below": below,
            "kvstrata_port": port_of,
            "kvstrata_with_mount": with_mount,
            "kvstrata_mount_of": mount_of,
            "kvstrata_namespace": namespace_of,
            "kvstrata_endpoint": endpoint_of,
            "kvstrata_firewall": firewall,
            "kvstrata_l2_problem": l2_problem,
            "kvstrata_stores": stores,
            "kvstrata_dynamo_environment": environment,
            "kvstrata_environment_file": environment_file,
        }
