"""Directives that every systemd unit of kvstrata shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# systemd.exec(5). What a service may not do here, none of ours needs.
_ALWAYS = (
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "RestrictSUIDSGID=yes",
    "RestrictNamespaces=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK",
    "LockPersonality=yes",
    "CapabilityBoundingSet=",
    "SystemCallArchitectures=native",
    "UMask=0077",
)

FIRST_WITH_RESTART_STEPS = 254


def hardening(read_write_paths: Sequence[str], *, devices: bool = False) -> str:
    """Return the sandbox directives of a [Service] section, one a line.

    Args:
        read_write_paths: the only folders outside /run and /tmp that the service may write; a leading "-" makes a
            missing one no error, as systemd has it.
        devices: whether the service needs the host's devices (a GPU).

    Raises:
        ValueError: if a path is not absolute; a relative one would stop the unit from starting.
    """
    for path in read_write_paths:
        if not path.lstrip("-").startswith("/"):
            raise ValueError(f"read-write path {path!r} of a unit is not absolute")
    lines = list(_ALWAYS)
    if not devices:
        lines.append("PrivateDevices=yes")
    if read_write_paths:
        lines.append("ReadWritePaths=" + " ".join(read_write_paths))
    return "\n".join(lines)


def restart_backoff(systemd_version: int | str) -> str:
    """Return the [Service] directives that restart a service for ever, ever more slowly where systemd can (254+)."""
    lines = ["Restart=always", "RestartSec=2"]
    if int(systemd_version) >= FIRST_WITH_RESTART_STEPS:
        lines += ["RestartSteps=6", "RestartMaxDelaySec=60"]
    return "\n".join(lines)


def arguments(given: Mapping[str, object]) -> list[str]:
    """Return the arguments of a command, as it gets them.

    Args:
        given: values by flag, as {"--port": 9000}. A list repeats its flag, True is the flag alone, False and None
            leave it out.

    Raises:
        ValueError: if a name is no flag.
    """
    found = []
    for flag, value in given.items():
        if not flag.startswith("--"):
            raise ValueError(f"{flag!r} is no flag of a command: it must begin with --")
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is not False and one is not None:
                found += [flag] if one is True else [flag, str(one)]
    return found


def flags(given: Mapping[str, object]) -> str:
    r"""Return the arguments of an ExecStart= line, one flag a line, each line but the last ended with a backslash.

    Args:
        given: values by flag, as for `arguments`.

    Raises:
        ValueError: as `arguments` does, and if a value has a line end, which would end the directive.
    """
    words = arguments(given)
    lines: list[str] = []
    for index, word in enumerate(words):
        if index and words[index - 1] in given and word not in given:
            lines[-1] += f" {_quoted(word)}"
        else:
            lines.append(f"    {_quoted(word)}")
    return " \\\n".join(lines)


def _quoted(text: str) -> str:
    """Return one argument of a command, as systemd.service(5) wants it written."""
    if "\n" in text:
        raise ValueError(f"{text!r} has a line end, which would end the directive of a unit")
    escaped = text.replace("%", "%%").replace("$", "$$")
    if escaped and not any(character in escaped for character in " \t\"'\\;"):
        return escaped
    return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'
