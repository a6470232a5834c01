"""How the processes of NVIDIA Dynamo find each other: the environment that workers and frontends share.

Everything is said, also what is Dynamo's default today: a worker whose event plane differs from its frontend's answers
requests, but no request finds its prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BACKENDS = ("etcd", "file")
_TLS = {"ca": "ETCD_AUTH_CA", "certificate": "ETCD_AUTH_CLIENT_CERT", "key": "ETCD_AUTH_CLIENT_KEY"}


def environment(discovery: Mapping[str, Any], address: str) -> dict[str, str]:
    """Return the variables of a process on the host with that address.

    Args:
        discovery: {"backend": "file", "folder": ...}, or {"backend": "etcd", "endpoints": [URL, ...], "lease_s": 60,
            "ca": ..., "certificate": ..., "key": ...}. The last three are texts in PEM form and not paths, for that is
            how Dynamo wants them. In both "events": {"publish": [URL, ...], "subscribe": [URL, ...]}, the brokers.
        address: where the other hosts reach the process; it listens there alone.

    Raises:
        ValueError: if the discovery is neither, with what is missing.
    """
    backend = discovery.get("backend")
    if backend not in BACKENDS:
        raise ValueError(f"discovery backend is {backend!r}; allowed: {', '.join(BACKENDS)}")
    wanted = ("events", *(("endpoints", "lease_s", *_TLS) if backend == "etcd" else ("folder",)))
    missing = [name for name in wanted if not discovery.get(name)]
    if missing:
        raise ValueError(f"discovery by {backend} needs {', '.join(missing)}")
    found = {
        "DYN_DISCOVERY_BACKEND": str(backend),
        "DYN_REQUEST_PLANE": "tcp",
        "DYN_RESPONSE_PLANE": "tcp",
        "DYN_EVENT_PLANE": "zmq",
        "DYN_TCP_RPC_HOST": address,
        "DYN_TCP_RESPONSE_STREAM_HOST": address,
        "DYN_ZMQ_BROKER_URL": _brokers(discovery["events"]),
        # The journal shows no colours.
        "DYN_SDK_DISABLE_ANSI_LOGGING": "1",
    }
    if backend == "file":
        return found | {"DYN_FILE_KV": str(discovery["folder"])}
    return found | {
        "ETCD_ENDPOINTS": ",".join(discovery["endpoints"]),
        "ETCD_LEASE_TTL": str(int(discovery["lease_s"])),
        **{variable: str(discovery[name]) for name, variable in _TLS.items()},
    }


def _brokers(events: Mapping[str, Any]) -> str:
    """Return the brokers of events as Dynamo wants them."""
    return f"xsub={';'.join(events['publish'])} , xpub={';'.join(events['subscribe'])}"


def environment_file(values: Mapping[str, object]) -> str:
    """Return a file for EnvironmentFile= of systemd.exec(5). A value may have several lines, as a certificate does.

    Raises:
        ValueError: if a name is none that systemd would take.
    """
    lines = []
    for name, value in values.items():
        if not name.isidentifier():
            raise ValueError(f"{name!r} is no name of an environment variable")
        escaped = str(value)
        for character in '\\"`$':
            escaped = escaped.replace(character, "\\" + character)
        lines.append(f'{name}="{escaped}"\n')
    return "".join(lines)
