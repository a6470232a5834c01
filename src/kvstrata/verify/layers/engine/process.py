"""How the running engine was started: its command line and the file it names, read in one command per node."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from kvstrata.cluster import LMCache
from kvstrata.verify.check import UnableError, UnmetError
from kvstrata.verify.shell import Shell

CONNECTOR = "LMCacheMPConnector"
TRANSFER = "kv-transfer-config"
# A line that neither a command line nor a YAML file holds.
_MARK = "=====kvstrata"
# Arguments: units. For each its main process and when that began, its words, one a line, when its configuration (behind
# --config, or the last word of a worker of Dynamo) was written, and what it holds.
_SCRIPT = r"""
for unit in "$@"; do
  pid=$(systemctl show --property=MainPID --value -- "$unit")
  began=$(systemctl show --timestamp=unix --property=ExecMainStartTimestamp --value -- "$unit" 2>/dev/null)
  echo "=====kvstrata unit $unit $pid ${began#@}"
  [ "${pid:-0}" -gt 0 ] && [ -r "/proc/$pid/cmdline" ] || continue
  tr '\0' '\n' < "/proc/$pid/cmdline"
  config=$(tr '\0' '\n' < "/proc/$pid/cmdline" | sed -n -e '/^--config$/{n;p;q;}' -e 's/^--config=//p')
  [ -n "$config" ] || config=$(tr '\0' '\n' < "/proc/$pid/cmdline" | grep '^/etc/kvstrata/.*\.yaml$' | tail -n 1)
  [ -n "$config" ] && [ -r "$config" ] || continue
  echo "=====kvstrata config $(stat -c %Y "$config")"
  head -c 65536 "$config"
  echo
done
"""


@dataclass(frozen=True)
class Started:
    """The main process of a unit. `options` are those of its file, overruled by those of the command line."""

    unit: str
    pid: int
    words: tuple[str, ...]
    options: dict[str, Any]
    config_is_newer: bool
    """Whether the file was changed after the process began: it may run with other options."""


def read(shell: Shell, units: Sequence[str]) -> dict[str, Started]:
    """The process of each unit that runs; UnableError when the node cannot say."""
    return parse(shell.run(["sh", "-c", _SCRIPT, "engines", *units]).text())


def parse(text: str) -> dict[str, Started]:
    """What the command printed, by unit; a unit without a process is left out."""
    found = {}
    for block in re.split(rf"^{_MARK} unit ", text, flags=re.MULTILINE)[1:]:
        head, _, rest = block.partition("\n")
        unit, pid, began = (*head.split(), "", "")[:3]
        command, _, config = rest.partition(f"{_MARK} config ")
        if not pid.isdigit() or int(pid) == 0 or not command.strip():
            continue
        words = tuple(command.rstrip("\n").split("\n"))
        written, _, document = config.partition("\n")
        newer = written.isdigit() and began.isdigit() and int(written) > int(began)
        found[unit] = Started(unit, int(pid), words, _options(document) | _arguments(words), newer)
    return found


def connector(started: Started, lmcache: LMCache) -> str:
    """The engine was told to use the node's LMCache; UnmetError says what it was told instead."""
    # A file that is newer than the process says how it will start the next time.
    where = f"process {started.pid}" + (", by a file changed since it began," if started.config_is_newer else "")
    given = started.options.get(TRANSFER)
    if given is None:
        raise UnmetError(f"{where} was started without {TRANSFER}: it has no connector")
    try:
        transfer = json.loads(given) if isinstance(given, str) else given
        name, extra = transfer.get("kv_connector"), transfer.get("kv_connector_extra_config") or {}
    except (ValueError, AttributeError):
        raise UnmetError(f"{where}: {TRANSFER} cannot be read: {str(given)[:120]!r}") from None
    if name != CONNECTOR:
        raise UnmetError(f"{where} uses the connector {name}")
    port = extra.get("lmcache.mp.port")
    if str(port) != str(lmcache.zmq_port):
        raise UnmetError(f"{where} asks for LMCache at port {port}, the inventory's is {lmcache.zmq_port}")
    return f"{CONNECTOR} to port {port}"


def _options(document: str) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(document)
    except yaml.YAMLError as error:
        raise UnableError(f"the engine's configuration is no YAML: {error}") from error
    return {str(key).replace("_", "-"): value for key, value in loaded.items()} if isinstance(loaded, dict) else {}


def _arguments(words: Sequence[str]) -> dict[str, Any]:
    """The long options of a command line; one without a value is true."""
    options: dict[str, Any] = {}
    for place, word in enumerate(words):
        if not word.startswith("--"):
            continue
        name, given, value = word[2:].partition("=")
        following = words[place + 1] if place + 1 < len(words) else "--"
        options[name.replace("_", "-")] = value if given else (True if following.startswith("--") else following)
    return options
