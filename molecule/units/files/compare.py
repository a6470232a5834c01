"""Start the same unit under systemd and under the runner, and print as JSON where their processes differ.

`compare.py UNIT...`; with `--plant NAME=VALUE` the runner's unit gets one more Environment=, which must be found.
"""

import argparse
import contextlib
import json
import re
import shutil
import sys
from pathlib import Path

from listen import RUNNER, SYSTEMD, Ears

# Of systemd's own journal and control groups; the runner's output goes to a file.
ONLY_SYSTEMD = {"JOURNAL_STREAM", "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE"}
LEFTOVERS = ("/var/cache/kvstrata", "/var/cache/private/kvstrata", "/run/kvstrata")
# systemd's range, docs/UIDS-GIDS.md of its sources.
DYNAMIC = range(61184, 65520)
START_S = 20
# What a unit here wants; it goes on when the unit stops.
ALSO = ("lmcache.service",)


def seen(manager, unit, ears):
    """Return what the unit's process sees under this manager."""
    for leftover in LEFTOVERS:
        shutil.rmtree(leftover, ignore_errors=True)
    code, said, _ = manager.start(unit)
    main = manager.main_process(unit)
    # What it wants tells too.
    while (found := ears.hear(START_S)) is not None and found["pid"] != main:
        pass
    stopped = manager.stop(unit, *ALSO)
    if code or found is None or stopped[0]:
        raise SystemExit(f"{manager.name}: {unit} did not start and stop: exit {code}, {said}; {stopped}")
    return plain(found)


def plain(found):
    """Return it with what is another at each start replaced by whether it is as it must be."""
    environment = {name: value for name, value in found["environment"].items() if name not in ONLY_SYSTEMD}
    environment["INVOCATION_ID"] = bool(re.fullmatch("[0-9a-f]{32}", environment.get("INVOCATION_ID", "")))
    for name in ("users", "groups", "own_folders"):
        found[name] = dynamic(found[name])
    environment["SYSTEMD_EXEC_PID"] = environment.get("SYSTEMD_EXEC_PID") == str(found.pop("pid"))
    return {**found, "environment": environment}


def dynamic(value):
    """Return it with users and groups of DynamicUser= without their number, which each chooses from the same range."""
    if isinstance(value, list):
        return [dynamic(each) for each in value]
    if isinstance(value, dict):
        return {name: dynamic(each) for name, each in value.items()}
    return "dynamic" if isinstance(value, int) and value in DYNAMIC else value


def differences(one, other, where=""):
    """Yield each place where two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(set(one) | set(other)):
            yield from differences(one.get(name, "not there"), other.get(name, "not there"), f"{where}/{name}")
    elif one != other:
        yield {"where": where, "systemd": one, "runner": other}


@contextlib.contextmanager
def planted(unit, variable):
    """Give the unit another variable, which systemd would see after a daemon-reload alone."""
    folder = Path(f"/run/systemd/system/{unit}.d")
    try:
        if variable:
            folder.mkdir(parents=True)
            (folder / "planted.conf").write_text(f"[Service]\nEnvironment={variable}\n")
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main():
    """Compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("units", nargs="+")
    parser.add_argument("--plant")
    given = parser.parse_args()
    ears, report = Ears(), {}
    for unit in given.units:
        expected = seen(SYSTEMD, unit, ears)
        with planted(unit, given.plant):
            found = seen(RUNNER, unit, ears)
        report[unit] = [{"unit": unit, **each} for each in differences(expected, found)]
    print(json.dumps({"differences": [each for found in report.values() for each in found], "last": expected}))
    sys.exit(any(report.values()))


main()
