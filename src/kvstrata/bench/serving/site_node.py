"""One node of a site, changed for a benchmark and changed back: drop-ins for its units, gone at the next boot.

What a crash of the benchmark leaves lies in /run alone: the next run removes it, and so does a reboot.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import yaml

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.model import Json
from kvstrata.verify.check import UnableError
from kvstrata.verify.shell import Shell

FOLDER = "/run/kvstrata-bench"
# After every other drop-in of a unit: the last ExecStart is the one that counts.
DROP_IN = "/run/systemd/system/{unit}.d/zz-kvstrata-bench.conf"
_CONFIGURATIONS = "/etc/kvstrata"
_COMMAND_S = 120.0
_STOP_S = 240.0


@dataclass(frozen=True)
class Unit:
    """A unit with another configuration: its file's name below FOLDER, its text, and more environment."""

    name: str
    file: str
    text: str
    environment: Mapping[str, str | None]
    """None takes a variable away."""


class NodeUnits:
    """The units of a node; methods raise BenchError, with what the node said."""

    def __init__(self, shell: Shell, name: str) -> None:
        """Act on the node behind `shell`."""
        self._shell, self._name = shell, name

    def engine_options(self, replica: str) -> dict[str, Json]:
        """Return what /etc/kvstrata/vllm/N.yaml holds, as it is deployed."""
        return cast(dict[str, Json], self._mapping(f"{_CONFIGURATIONS}/vllm/{replica}.yaml"))

    def cache_server(self) -> dict[str, Any]:
        """Return what /etc/kvstrata/lmcache/server.json holds, as it is deployed."""
        return self._mapping(f"{_CONFIGURATIONS}/lmcache/server.json")

    def left_over(self) -> bool:
        """Whether an earlier benchmark left something behind."""
        return self._run(f"ls -d {FOLDER} /run/systemd/system/*.d/zz-kvstrata-bench.conf 2>/dev/null || true") != ""

    def change(self, units: Sequence[Unit]) -> None:
        """Give units other configurations; they take effect when the units are started again."""
        script = [f"mkdir -p {FOLDER}"]
        for unit in units:
            command = self._command(unit.name, f"{FOLDER}/{unit.file}")
            drop_in = DROP_IN.format(unit=unit.name)
            text = drop_in_text(command, unit.environment)
            script += [
                f"mkdir -p {shlex.quote(drop_in.rpartition('/')[0])}",
                f"printf %s {shlex.quote(unit.text)} > {FOLDER}/{unit.file}",
                f"chmod 644 {FOLDER}/{unit.file}",
                f"printf %s {shlex.quote(text)} > {shlex.quote(drop_in)}",
            ]
        script.append("systemctl daemon-reload")
        self._run(" && ".join(script))

    def restore(self) -> None:
        """Take every change back; it takes effect when the units are started again."""
        self._run(
            f"rm -rf {FOLDER} && rm -f /run/systemd/system/*.d/zz-kvstrata-bench.conf && "
            "rmdir --ignore-fail-on-non-empty /run/systemd/system/vllm@*.service.d "
            "/run/systemd/system/lmcache.service.d 2>/dev/null; systemctl daemon-reload"
        )

    def stop(self, units: Sequence[str]) -> None:
        """Stop units."""
        self._run(shlex.join(["systemctl", "stop", *units]), _STOP_S)

    def start(self, units: Sequence[str]) -> None:
        """Start units; they are not healthy yet."""
        self._run(
            shlex.join(["systemctl", "reset-failed", *units]) + " ; " + shlex.join(["systemctl", "start", *units])
        )

    def journal(self, unit: str, lines: int = 20) -> str:
        """Return the end of what a unit said."""
        return self._run(shlex.join(["journalctl", "--no-pager", "-o", "cat", "-n", str(lines), "-u", unit]))

    def state(self, unit: str) -> str:
        """Return systemd's state of a unit, as `active/running`."""
        asked = self._run(shlex.join(["systemctl", "show", "-p", "ActiveState,SubState", "--value", unit]))
        return "/".join(asked.split())

    def used(self, units: Sequence[str]) -> dict[str, dict[str, float]]:
        """Return processor seconds and bytes of all processes of each unit, as `process:UNIT`."""
        return parse_usage(self._run(_USAGE.format(units=shlex.join(units))))

    def facts(self) -> dict[str, Json]:
        """Return what identifies the machine: processors, memory, kernel, GPUs."""
        return parse_facts(self._run(_FACTS))

    def _command(self, unit: str, file: str) -> str:
        """Return a unit's deployed command with another file as its last argument."""
        shown = self._run(shlex.join(["systemctl", "show", "-p", "ExecStart", "--value", unit]))
        return replaced_command(shown, file, f"{self._name}: {unit}")

    def _mapping(self, path: str) -> dict[str, Any]:
        text = self._run(f"cat {shlex.quote(path)}")
        found = json.loads(text) if path.endswith(".json") else yaml.safe_load(text)
        if not isinstance(found, dict):
            raise BenchError(f"{self._name}: {path} holds no mapping: was the site deployed with this checkout?")
        return found

    def _run(self, script: str, timeout_s: float = _COMMAND_S) -> str:
        try:
            return self._shell.run(["sh", "-c", script], timeout_s).text()
        except UnableError as error:
            raise BenchError(f"{self._name}: {error}") from error


def replaced_command(shown: str, file: str, what: str) -> str:
    """Return the command of `systemctl show -p ExecStart --value`, its last argument replaced by `file`.

    Raises:
        BenchError: there is none, or it does not end with a file of /etc/kvstrata or FOLDER.
    """
    _, found, rest = shown.partition("argv[]=")
    words = rest.partition(" ;")[0].split()
    if not found or not words or not words[-1].startswith((f"{_CONFIGURATIONS}/", f"{FOLDER}/")):
        raise BenchError(f"{what} has an unexpected ExecStart: {shown!r}")
    return " ".join([*words[:-1], file])


def drop_in_text(command: str, environment: Mapping[str, str | None]) -> str:
    """Return a drop-in that replaces a unit's command and changes its environment."""
    lines = ["# Of a running benchmark (kvstrata bench serve); gone at the next boot.", "[Service]"]
    for name, value in environment.items():
        if value is None:
            lines.append(f"UnsetEnvironment={name}")
            continue
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
        lines.append(f'Environment="{name}={escaped}"')
    return "\n".join([*lines, "ExecStart=", f"ExecStart={command}", ""])


# For each process of each unit: its stat and io. The controllers' files lie elsewhere with cgroup v1.
_USAGE = (
    "for u in {units}; do g=$(systemctl show -p ControlGroup --value $u); "
    'for f in "/sys/fs/cgroup$g" "/sys/fs/cgroup/systemd$g" "/sys/fs/cgroup/unified$g"; do '
    '[ -r "$f/cgroup.procs" ] && find "$f" -name cgroup.procs -exec cat {{}} + && break; done | sort -u | '
    'while read p; do echo "== $u"; cat /proc/$p/stat /proc/$p/io 2>/dev/null; done; done; getconf CLK_TCK'
)


def parse_usage(text: str) -> dict[str, dict[str, float]]:
    """Return what the script above printed, summed for each unit; seconds and bytes."""
    found: dict[str, dict[str, float]] = {}
    lines = text.splitlines()
    ticks = float(lines[-1]) if lines and lines[-1].isdigit() else 100.0
    unit: dict[str, float] = {}
    for line in lines:
        if line.startswith("== "):
            unit = found.setdefault(f"process:{line[3:]}", {"cpu_s": 0.0})
        elif ") " in line:
            # proc_pid_stat(5): utime, stime, cutime, cstime are fields 14 to 17; the name may hold spaces.
            unit["cpu_s"] = unit.get("cpu_s", 0.0) + sum(map(int, line.rpartition(")")[2].split()[11:15])) / ticks
        elif ": " in line:
            name, _, value = line.partition(": ")
            if name in ("read_bytes", "write_bytes", "rchar", "wchar"):
                unit[name] = unit.get(name, 0.0) + float(value)
    return found


_FACTS = (
    "grep -m1 'model name' /proc/cpuinfo || uname -m; nproc; grep MemTotal /proc/meminfo; uname -r; "
    "nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null || true"
)


def parse_facts(text: str) -> dict[str, Json]:
    """Return what the script above printed."""
    cpu, cores, memory, kernel, *gpus = [*text.splitlines(), "", "", "", ""]
    numbers = [word for word in memory.split() if word.isdigit()]
    return {
        "cpu": cpu.rpartition(":")[2].strip(),
        "cores": int(cores) if cores.isdigit() else 0,
        # /proc/meminfo's kB are KiB.
        "memory_bytes": int(numbers[0]) * 1024 if numbers else 0,
        "kernel": kernel,
        "gpu_names": [gpu.strip() for gpu in gpus if gpu.strip()],
    }
