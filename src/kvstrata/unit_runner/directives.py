"""From the lines of a unit to a Service: what each directive means. One that is not in these tables is refused."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from kvstrata.affinity import cpus as cpu_list
from kvstrata.unit_runner import specifiers, tables, values, words
from kvstrata.unit_runner.errors import UnitError
from kvstrata.unit_runner.files import Line, UnitFile
from kvstrata.unit_runner.service import FOLDER_ROOTS, Command, Folders, Service

COMMANDS = ("ExecStartPre", "ExecStart", "ExecStartPost", "ExecReload", "ExecStop", "ExecStopPost")
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# They say what systemd does with other units, and when; nothing of it is in the process.
_ONLY_FOR_SYSTEMD = frozenset(
    {"Documentation", "PartOf", "Conflicts", "DefaultDependencies", "ReloadPropagatedFrom", "LogRateLimitIntervalSec"}
)
# Seccomp filters, namespaces and such, which take something away from a process and give it nothing.
NOT_APPLIED = frozenset(
    {
        "PrivateDevices",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "ProtectClock",
        "ProtectHostname",
        "RestrictSUIDSGID",
        "RestrictNamespaces",
        "RestrictAddressFamilies",
        "LockPersonality",
        "SystemCallArchitectures",
    }
)


def service(unit: UnitFile) -> Service:
    """Return what the unit asks for.

    Raises:
        UnitError: it is no service, has a directive that is not known here, or a value that is not allowed.
    """
    if unit.kind != "service":
        raise UnitError(f"{unit.name}: a {unit.kind}; allowed: services")
    reader = _Reader(unit)
    for line in unit.lines:
        reader.take(line)
    return reader.made()


class _Reader:
    """Takes line by line, and keeps the fields of a Service."""

    def __init__(self, unit: UnitFile) -> None:
        self._unit = unit
        self._known = specifiers.of_unit(unit.name)
        self._found: dict[str, Any] = {
            "environment": {},
            "credentials": {},
            "limits": {},
            "commands": {},
            "folders": {},
        }
        self._modes: dict[str, int] = {}
        self._not_applied: dict[str, str] = {}
        self._capabilities: dict[str, list[str] | None] = {}

    def take(self, line: Line) -> None:
        if line.section == "Install" or line.name in _ONLY_FOR_SYSTEMD:
            return
        if line.section not in ("Unit", "Service"):
            raise UnitError(f"{line.where}: [{line.section}]; allowed: [Unit], [Service], [Install]")
        at = f"{line.where}: {line.name}"
        # Of commands and variables after their quotes: what a specifier stands for is never split or unescaped.
        late = line.name in COMMANDS or line.name == "Environment"
        value = line.value if late else specifiers.expand(line.value, self._known, at)
        if line.section == "Unit" and line.name in tables.UNIT:
            self._put(tables.UNIT[line.name], value, at)
        elif line.section == "Service" and line.name in tables.SERVICE:
            self._put(tables.SERVICE[line.name], value, at)
        elif line.section == "Service" and line.name in values.LIMITS:
            self._found["limits"][line.name] = values.limit(line.name, value, at)
        elif line.section == "Service" and line.name in COMMANDS:
            self._commands(line, at)
        elif line.section == "Service" and line.name in _OWN:
            _OWN[line.name](self, value, at)
        elif line.section == "Service" and line.name in NOT_APPLIED:
            self._not_applied[line.name] = value
        elif line.section == "Service" and line.name.removesuffix("Mode") in FOLDER_ROOTS:
            self._folders(line.name, value, at)
        else:
            raise UnitError(
                f"{line.where}: {line.name}= of [{line.section}] is not known to this runner, and is not left out; "
                "allowed: what docs/units.md lists"
            )

    def made(self) -> Service:
        found = self._found
        found["folders"] = {
            name: Folders(names, self._modes.get(name, FOLDER_ROOTS[name][1]))
            for name, names in found["folders"].items()
        }
        bounding = self._capabilities.get("CapabilityBoundingSet")
        if "CapabilityBoundingSet" in self._capabilities:
            found["bounding"] = frozenset(bounding or ())
        found["ambient"] = frozenset(self._capabilities.get("AmbientCapabilities") or ())
        turned_on = {n: v for n, v in self._not_applied.items() if v.lower() not in ("no", "false", "off", "0", "")}
        found["not_applied"] = tuple(f"{name}={value}" for name, value in turned_on.items())
        # namespace_parameters_mount_apivfs() of systemd 252 to 255: ProtectSystem=strict then leaves /run writable.
        found["api_mounts"] = bool({"ProtectKernelTunables", "ProtectControlGroups"} & set(turned_on))
        made = Service(self._unit.name, self._unit.files, **found)
        self._judge(made)
        return made

    def _judge(self, made: Service) -> None:
        if not made.exec_start and not (made.type == "oneshot" and made.commands.get("ExecStop")):
            raise UnitError(f"{made.name}: no ExecStart=")
        if len(made.exec_start) > 1 and made.type != "oneshot":
            raise UnitError(
                f"{made.exec_start[1].where}: {len(made.exec_start)} commands; allowed: one, but for Type=oneshot"
            )
        if made.type == "oneshot" and made.restart in ("always", "on-success"):
            raise UnitError(
                f"{made.name}: Restart={made.restart} of a oneshot; allowed: no, on-failure, on-abnormal, on-abort"
            )
        if made.cpus_of_numa and not made.numa_nodes:
            raise UnitError(f"{made.name}: CPUAffinity=numa without NUMAMask=")

    def _put(self, rule: tuple[str, Callable[[str, str], Any]], value: str, at: str) -> None:
        field, read = rule
        if read is tables.words:
            # An empty one resets what lines before it said.
            self._found[field] = (*self._found.get(field, ()), *value.split()) if value else ()
        elif value:
            self._found[field] = read(value, at)
        else:
            self._found.pop(field, None)

    def _commands(self, line: Line, at: str) -> None:
        name, found = line.name, self._found["commands"]
        if not line.value:
            found[name] = ()
            return
        made = tuple(self._command(each, at) for each in words.commands(words.split(line.value, at)) if each)
        found[name] = (*found.get(name, ()), *made)

    def _command(self, argv: list[str], at: str) -> Command:
        first, *rest = argv
        path = first.lstrip("@-:+!")
        prefixes = first[: len(first) - len(path)]
        if "!" in prefixes:
            raise UnitError(f"{at}: prefix ! of {first!r}; allowed: @ - : +")
        path = specifiers.expand(path, self._known, at)
        arguments = [specifiers.expand(word, self._known, at) for word in rest]
        if "@" in prefixes:
            if not arguments:
                raise UnitError(f"{at}: {first!r} needs its argv[0] as the next word")
        else:
            arguments = [path, *arguments]
        if not path.startswith("/"):
            if "/" in path:
                raise UnitError(f"{at}: {path!r}; allowed: an absolute path, or a name without slash")
            path = shutil.which(path, path=SEARCH_PATH) or path
        return Command(tuple(arguments), path, at, "-" in prefixes, ":" in prefixes, "+" in prefixes)

    def _folders(self, name: str, value: str, at: str) -> None:
        if name.endswith("Mode"):
            self._modes[name.removesuffix("Mode")] = values.mode(value, at)
            return
        names = tuple(value.split())
        if wrong := [one for one in names if one.startswith("/") or ".." in one.split("/") or ":" in one]:
            raise UnitError(f"{at}: {wrong[0]!r}; allowed: relative paths without ..")
        self._found["folders"][name] = (*self._found["folders"].get(name, ()), *names) if value else ()

    def environment(self, value: str, at: str) -> None:
        found: dict[str, str] = self._found["environment"]
        if not value:
            found.clear()
        for word in words.split(value, at):
            name, equals, text = word.partition("=")
            if not equals or not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
                raise UnitError(f"{at}: {word!r}; allowed: NAME=value")
            found[name] = specifiers.expand(text, self._known, at)

    def environment_file(self, value: str, at: str) -> None:
        path = value.removeprefix("-")
        if value and (not path.startswith("/") or any(character in path for character in "*?[")):
            raise UnitError(f"{at}: {path!r}; allowed: an absolute path without wildcards")
        before = self._found.get("environment_files", ())
        self._found["environment_files"] = (*before, (path, value.startswith("-"))) if value else ()

    def credential(self, value: str, at: str) -> None:
        name, colon, path = value.partition(":")
        if not colon or not path.startswith("/") or not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise UnitError(f"{at}: {value!r}; allowed: NAME:/absolute/path")
        self._found["credentials"][name] = path

    def working_directory(self, value: str, at: str) -> None:
        path = value.removeprefix("-")
        if path != "~" and not path.startswith("/"):
            raise UnitError(f"{at}: {value!r}; allowed: an absolute path, or ~")
        self._found |= {"working_directory": path, "working_directory_may_miss": value.startswith("-")}

    def affinity(self, value: str, at: str) -> None:
        self._found["cpus_of_numa"] = value == "numa"
        if value != "numa":
            try:
                self._found["cpus"] = (
                    tuple(sorted(cpu_list(",".join(value.replace(",", " ").split())))) if value else None
                )
            except ValueError:
                raise UnitError(f"{at}: {value!r}; allowed: CPUs and ranges of them, or numa") from None

    def numa_mask(self, value: str, at: str) -> None:
        try:
            self._found["numa_nodes"] = tuple(sorted(cpu_list(",".join(value.replace(",", " ").split()))))
        except ValueError:
            raise UnitError(f"{at}: {value!r}; allowed: NUMA nodes and ranges of them") from None

    def capabilities(self, name: str, value: str, at: str) -> None:
        if value.startswith("~"):
            raise UnitError(f"{at}: {value!r}; allowed: capabilities to keep, without ~")
        # Lines add up; an empty one empties the set.
        self._capabilities[name] = [*(self._capabilities.get(name) or []), *value.split()] if value else []

    def timeout(self, value: str, at: str) -> None:
        self._found |= dict.fromkeys(("start_timeout_s", "stop_timeout_s"), values.timeout(value, at))


_OWN: Mapping[str, Callable[[_Reader, str, str], None]] = {
    "Environment": _Reader.environment,
    "EnvironmentFile": _Reader.environment_file,
    "LoadCredential": _Reader.credential,
    "WorkingDirectory": _Reader.working_directory,
    "CPUAffinity": _Reader.affinity,
    "NUMAMask": _Reader.numa_mask,
    "TimeoutSec": _Reader.timeout,
    "CapabilityBoundingSet": lambda reader, value, at: reader.capabilities("CapabilityBoundingSet", value, at),
    "AmbientCapabilities": lambda reader, value, at: reader.capabilities("AmbientCapabilities", value, at),
}
