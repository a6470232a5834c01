"""Start, stop and show systemd's services on a host without systemd. Needs nothing but the standard library."""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from kvstrata.unit_runner import files, order, process
from kvstrata.unit_runner.directives import SEARCH_PATH
from kvstrata.unit_runner.errors import StepError, UnitError
from kvstrata.unit_runner.service import Service
from kvstrata.unit_runner.state import DEFAULT, State, Store, alive
from kvstrata.unit_runner.supervise import Supervisor

PATH = SEARCH_PATH.removesuffix(":/sbin:/bin")
_SANDBOX = {"PrivateTmp": "private_tmp", "ProtectSystem": "protect_system", "ProtectHome": "protect_home"}
_ANSWER_S = 3600.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0: all is as asked, 1: a unit is not, 2: refused, and nothing was started."""
    given = _parser().parse_args(argv)
    store = Store(given.state)
    try:
        if given.verb == "status":
            return _status(given.units or store.units(), store, as_json=given.json)
        if given.verb == "stop":
            return _stop(given.units, store)
        services = _load(given)
        if given.verb == "supervise":
            return _supervise(services[given.units[0]], store, given.path)
        if given.verb == "check":
            return _check(list(services.values()))
        return _start(order.ordered(services), given, store)
    except (UnitError, StepError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kvstrata.unit_runner", description=__doc__)
    parser.add_argument("verb", choices=("start", "stop", "status", "check", "supervise"))
    parser.add_argument("units", nargs="*", help="as vllm@0.service; status: all where none is named")
    parser.add_argument("--folder", type=Path, action="append", help="of unit files; default: systemd's own")
    parser.add_argument("--state", type=Path, default=DEFAULT, help="folder of states and logs (%(default)s)")
    parser.add_argument("--path", default=PATH, help="PATH of the units (%(default)s)")
    parser.add_argument(
        "--without", action="append", default=[], choices=sorted(_SANDBOX), help="leave out, and say so"
    )
    parser.add_argument("--json", action="store_true", help="status as JSON")
    parser.add_argument("--told", type=int, help=argparse.SUPPRESS)
    return parser


def _load(given: argparse.Namespace) -> dict[str, Service]:
    if not given.units:
        raise UnitError(f"{given.verb}: no unit; allowed: one or more")
    folders = given.folder or files.FOLDERS
    services, missing = order.load(given.units, lambda name: files.find(name, folders))
    for name in missing:
        print(f"wanted and not there: {name}", file=sys.stderr)
    return {name: _without(one, given.without) for name, one in services.items()}


def _without(service: Service, names: Sequence[str]) -> Service:
    for name in names:
        value = getattr(service, _SANDBOX[name])
        if value not in (False, "no"):
            off: dict[str, object] = {_SANDBOX[name]: False if value is True else "no"}
            said = (*service.not_applied, f"{name}={'yes' if value is True else value}")
            service = replace(service, not_applied=said, **off)  # type: ignore[arg-type]
    return service


def _check(services: Sequence[Service]) -> int:
    for one in order.ordered({each.name: each for each in services}):
        print(f"{one.name}: {', '.join(map(str, one.files))}")
        for line in one.not_applied:
            print(f"  NOT APPLIED: {line}")
    return 0


def _start(services: Sequence[Service], given: argparse.Namespace, store: Store) -> int:
    failed: set[str] = set()
    for one in services:
        if alive(store.read(one.name)) and store.read(one.name).active != "failed":
            print(f"{one.name}: {store.read(one.name).active} already")
            continue
        if lost := failed & set(one.requires):
            print(f"{one.name}: not started, for it requires {', '.join(sorted(lost))}", file=sys.stderr)
            failed.add(one.name)
            continue
        for line in (*one.not_applied, *process.out_of_reach(one)):
            print(f"{one.name}: NOT APPLIED: {line}", file=sys.stderr)
        answer = _spawn(one, given)
        print(f"{one.name}: {answer}")
        if not answer.startswith(("active", "inactive")):
            failed.add(one.name)
    return 1 if failed else 0


def _spawn(one: Service, given: argparse.Namespace) -> str:
    reading, writing = os.pipe()
    words = [sys.executable, "-m", "kvstrata.unit_runner", "supervise", one.name, "--told", str(writing)]
    words += ["--state", str(given.state), "--path", given.path]
    words += [word for folder in given.folder or [] for word in ("--folder", str(folder))]
    words += [word for name in given.without for word in ("--without", name)]
    log = Store(given.state).folder / f"{one.name}.supervisor.log"
    with log.open("ab") as out:
        supervisor = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            pass_fds=(writing,),
            cwd="/",
            # From there it must still find this package. Nothing of this environment reaches the unit.
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )
    os.close(writing)
    with os.fdopen(reading) as stream:
        if not select.select([stream], [], [], _ANSWER_S)[0]:
            return f"failed: no word from its supervisor, process {supervisor.pid}, in {_ANSWER_S:g} s"
        return stream.readline().strip() or f"failed: its supervisor ended; see {log}"


def _supervise(one: Service, store: Store, path: str) -> int:
    told = int(_option("--told"))

    def tell(line: str) -> None:
        nonlocal told
        if told >= 0:
            os.write(told, f"{line}\n".encode())
            os.close(told)
            told = -1

    os.set_inheritable(told, False)
    Supervisor(one, store, path, tell).run()
    return 0


def _option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def _stop(units: Sequence[str], store: Store) -> int:
    # In the order in which they are named: the last ones are not asked what they need.
    for unit in units:
        state = store.read(unit)
        if alive(state):
            os.kill(state.supervisor, signal.SIGTERM)
            while alive(state):
                time.sleep(0.05)
        print(f"{unit}: {store.read(unit).active}")
    return 0


def _status(units: Sequence[str], store: Store, *, as_json: bool) -> int:
    states: list[State] = [store.read(unit) for unit in units]
    if as_json:
        print(json.dumps([{**asdict(one), "log": str(store.log(one.unit))} for one in states], indent=1))
    else:
        for one in states:
            main = f"main process {one.main_pid or 'none'}, {one.restarts} restarts"
            print(", ".join(filter(None, (f"{one.unit}: {one.active}", main, one.result))))
            for line in one.not_applied:
                print(f"  NOT APPLIED: {line}")
    return 0 if all(one.active == "active" for one in states) else 1
