"""Start the same unit under systemd and under the runner, and print as JSON where their processes differ.

`compare.py UNIT...`; with `--plant NAME=VALUE` the runner's unit gets one more Environment=, which must be found.
"""

import json
import re
import shutil
import sys
from pathlib import Path

from listen import Ears, Runner, Systemd

# Of systemd's own journal and control groups; the runner's output goes to a file.
ONLY_SYSTEMD = {"JOURNAL_STREAM", "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE"}
FRESH = {"INVOCATION_ID": re.compile("[0-9a-f]{32}"), "SYSTEMD_EXEC_PID": None}
DROP_IN = Path("/run/systemd/system/{unit}.d/planted.conf")


def seen(manager, unit, ears):
    """Return what the unit's process sees under this manager."""
    for leftover in ("/var/cache/kvstrata", "/var/cache/private/kvstrata", "/run/kvstrata"):
        shutil.rmtree(leftover, ignore_errors=True)
    manager.forget(unit)
    code, said, _ = manager.start(unit)
    found = ears.hear(20)
    stopped = manager.stop(unit)
    if code or found is None or stopped[0]:
        raise SystemExit(f"{manager.name}: {unit} did not start and stop: exit {code}, {said}; {stopped}")
    return plain(found)


def plain(found):
    """Return it with what is another at each start replaced by whether it is as it must be."""
    environment = {name: value for name, value in found["environment"].items() if name not in ONLY_SYSTEMD}
    environment["INVOCATION_ID"] = bool(FRESH["INVOCATION_ID"].fullmatch(environment.get("INVOCATION_ID", "")))
    environment["SYSTEMD_EXEC_PID"] = environment.get("SYSTEMD_EXEC_PID") == str(found.pop("pid"))
    found["environment"] = environment
    return found


def differences(one, other, where=""):
    """Yield each place where two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(set(one) | set(other)):
            yield from differences(one.get(name, "not there"), other.get(name, "not there"), f"{where}/{name}")
    elif one != other:
        yield {"where": where, "systemd": one, "runner": other}


def main():
    units, planted = sys.argv[1:], ""
    if "--plant" in units:
        planted = units.pop(units.index("--plant") + 1)
        units.remove("--plant")
    ears, report = Ears(), {}
    for unit in units:
        expected = seen(Systemd(), unit, ears)
        if planted:
            # systemd reads it at its next daemon-reload alone.
            file = Path(str(DROP_IN).format(unit=unit))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"[Service]\nEnvironment={planted}\n")
        try:
            found = seen(Runner(), unit, ears)
        finally:
            if planted:
                shutil.rmtree(file.parent)
        report[unit] = {"differences": [{"unit": unit, **each} for each in differences(expected, found)], "compared": expected}
    print(json.dumps(report))
    sys.exit(any(one["differences"] for one in report.values()))


main()
