"""`systemctl` for units under the runner: the few words of it that programs ask, as if systemd were there.

A word, an option or a property that is not known here is an error, and never an empty answer. A unit counts as
`disabled`, for nothing starts it at a boot.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from kvstrata.unit_runner import cli, files
from kvstrata.unit_runner.directives import service
from kvstrata.unit_runner.errors import UnitError
from kvstrata.unit_runner.state import DEFAULT, State, Store, alive
from kvstrata.unit_runner.values import signal_of

STATE_VARIABLE = "KVSTRATA_UNITS_STATE"
_FLAGS = frozenset({"--no-pager", "-l", "--value", "--quiet", "--no-block", "--timestamp=unix"})
_SUB = {"active": "running", "auto-restart": "auto-restart", "activating": "start", "deactivating": "stop-sigterm"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit codes are systemctl's as far as they go: 0, 1 failed, 3 not active, 4 no such unit."""
    words = list(sys.argv[1:] if argv is None else argv)
    state = Path(os.environ.get(STATE_VARIABLE) or DEFAULT)
    try:
        verb, units, flags, given = _read(words)
        if verb == "show":
            return _show(units, Store(state), flags, given)
        if verb not in _VERBS:
            raise UnitError(f"{verb!r}; allowed: show, {', '.join(_VERBS)}")
        return _VERBS[verb](units, state, given)
    except UnitError as error:
        print(f"systemctl of kvstrata.unit_runner: {error}", file=sys.stderr)
        return 1


def _read(words: Sequence[str]) -> tuple[str, list[str], set[str], dict[str, str]]:
    flags: set[str] = set()
    given: dict[str, str] = {}
    plain: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        if word in _FLAGS:
            flags.add(word)
        elif equals and name in ("--property", "--signal"):
            given[name] = value
        elif word != "--":
            if word.startswith("-"):
                raise UnitError(f"option {word!r}; allowed: --property=, --signal=, {', '.join(sorted(_FLAGS))}")
            plain.append(word)
    if not plain:
        raise UnitError("no verb")
    return plain[0], plain[1:], flags, given


def properties(unit: str, state: State, *, unix: bool = False) -> dict[str, Callable[[], str]]:
    """Return how to find each property of a unit that is known here."""

    def moment() -> str:
        if not state.since or state.active != "active":
            return ""
        return (
            f"@{state.since:.0f}"
            if unix
            else datetime.fromtimestamp(state.since, UTC).strftime("%a %Y-%m-%d %H:%M:%S UTC")
        )

    def loaded() -> str:
        return "not-found" if files.find(unit) is None else "loaded"

    def of_file(field: str) -> str:
        found = files.find(unit)
        return str(getattr(service(found), field) or "") if found else ""

    def argv() -> str:
        found = files.find(unit)
        start = service(found).exec_start if found else ()
        return " ; ".join(f"{{ path={one.path} ; argv[]={' '.join(one.argv)} ; }}" for one in start)

    return {
        "Id": lambda: unit,
        "LoadState": loaded,
        "ActiveState": lambda: "activating" if state.active == "auto-restart" else state.active,
        "SubState": lambda: _SUB.get(state.active, "failed" if state.active == "failed" else "dead"),
        "UnitFileState": lambda: "disabled" if loaded() == "loaded" else "",
        "NRestarts": lambda: str(state.restarts),
        "Result": lambda: "success" if state.active != "failed" else "exit-code",
        "InvocationID": lambda: state.invocation,
        "ActiveEnterTimestamp": moment,
        "ExecMainStartTimestamp": moment,
        "MainPID": lambda: str(state.main_pid),
        "User": lambda: of_file("user"),
        "ExecStart": argv,
    }


def _show(units: Sequence[str], store: Store, flags: set[str], given: Mapping[str, str]) -> int:
    wanted = [name for name in given.get("--property", "").split(",") if name]
    blocks = []
    for unit in units:
        known = properties(unit, store.read(unit), unix="--timestamp=unix" in flags)
        if unknown := [name for name in wanted or [""] if name not in known]:
            raise UnitError(f"property {unknown[0]!r}; allowed: --property= of {', '.join(known)}")
        blocks.append("\n".join(known[name]() if "--value" in flags else f"{name}={known[name]()}" for name in wanted))
    print("\n\n".join(blocks))
    return 0


def _is_active(units: Sequence[str], state: Path, _given: Mapping[str, str]) -> int:
    return 0 if units and all(Store(state).read(unit).active == "active" for unit in units) else 3


def _start(units: Sequence[str], state: Path, _given: Mapping[str, str]) -> int:
    return min(1, cli.main(["start", *units, "--state", str(state)]))


def _stop(units: Sequence[str], state: Path, _given: Mapping[str, str]) -> int:
    return min(1, cli.main(["stop", *units, "--state", str(state)]))


def _restart(units: Sequence[str], state: Path, given: Mapping[str, str]) -> int:
    return _stop(units, state, given) or _start(units, state, given)


def _kill(units: Sequence[str], state: Path, given: Mapping[str, str]) -> int:
    number = signal_of(given.get("--signal", "SIGTERM"), "--signal")
    for unit in units:
        found = Store(state).read(unit)
        if not alive(found) or not found.main_pid:
            raise UnitError(f"{unit} is {found.active}; allowed: a unit that runs")
        os.kill(found.main_pid, signal.Signals(number))
    return 0


def _cat(units: Sequence[str], _state: Path, _given: Mapping[str, str]) -> int:
    for unit in units:
        found = files.find(unit)
        if found is None:
            raise UnitError(f"{unit}: no such unit")
        for file in found.files:
            print(f"# {file}\n{file.read_text()}")
    return 0


def _status(units: Sequence[str], state: Path, _given: Mapping[str, str]) -> int:
    return 0 if cli.main(["status", *units, "--state", str(state)]) == 0 else 3


def _nothing(_units: Sequence[str], _state: Path, _given: Mapping[str, str]) -> int:
    return 0


_VERBS: Mapping[str, Callable[[Sequence[str], Path, Mapping[str, str]], int]] = {
    "is-active": _is_active,
    "start": _start,
    "stop": _stop,
    "restart": _restart,
    "kill": _kill,
    "cat": _cat,
    "status": _status,
    # Units are read at each start, and failures are not counted beyond one.
    "daemon-reload": _nothing,
    "reset-failed": _nothing,
}

if __name__ == "__main__":
    sys.exit(main())
