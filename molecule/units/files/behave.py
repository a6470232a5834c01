"""What systemd and the runner do with the same units in time: order, readiness, restarts, stops. Prints JSON."""

import itertools
import json
import sys
import time
from pathlib import Path

from listen import POLL_S, RUNNER, SYSTEMD, Ears

# Of a node that shares two cores with everything else.
SLACK_S = 2.5
SETTLES_S = 60


def told(manager, ears, unit):
    """Return what comes until the unit has come to rest."""
    found, deadline = [], time.monotonic() + SETTLES_S
    while True:
        # Asked first: whatever a process says, it says before its unit comes to rest.
        rest = manager.settled(unit)
        while (said := ears.hear(POLL_S)) is not None:
            found.append(said)
        if rest:
            return found
        if time.monotonic() > deadline:
            raise SystemExit(f"{manager.name}: {unit} did not come to rest in {SETTLES_S} s; it said {found}")


def words(manager, ears, unit):
    """Return whether a start and a stop fail, and which commands ran, in their order."""
    failed = manager.start(unit)[0] != 0
    started = told(manager, ears, unit)
    stop_failed = manager.stop(unit)[0] != 0
    stopped = told(manager, ears, unit)
    ran = [said["word"] for said in (*started, {"word": "--stop--"}, *stopped)]
    return {"start_failed": failed, "stop_failed": stop_failed, "ran": ran}


def starts(manager, ears, unit):
    """Return how often it is started, and the seconds between two starts."""
    manager.start(unit)
    moments = [said["at"] for said in told(manager, ears, unit)]
    manager.stop(unit)
    return {"starts": len(moments), "gaps_s": [later - earlier for earlier, later in itertools.pairwise(moments)]}


def deaf(manager, ears, unit):
    """Return the seconds of a stop that nobody hears, and what is left behind."""
    manager.start(unit)
    said = ears.hear(20)
    seconds = manager.stop(unit)[2]
    return {"stop_s": seconds, "left": [name for name in ("pid", "child") if Path(f"/proc/{said[name]}").exists()]}


def ready(manager, ears, unit):
    """Return when a start has ended, from the first word of the process."""
    code, _, _ = manager.start(unit)
    done = time.monotonic()
    said = ears.hear(20)
    manager.stop(unit)
    return {"start_failed": code != 0, "socket": said["socket"], "ready_s": done - said["at"]}


def close(one, other):
    """Return whether two JSON values are the same, numbers within the slack."""
    if isinstance(one, dict):
        return set(one) == set(other) and all(close(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    if isinstance(one, float):
        return abs(one - other) <= SLACK_S
    return one == other


CASES = {
    "steps": (words, "probe-steps.service"),
    "a step before fails": (words, "probe-refused.service"),
    "order": (words, "probe-after.service"),
    "no program": (words, "probe-missing.service"),
    "restarts": (starts, "probe-again.service"),
    "a clean end": (starts, "probe-clean.service"),
    "deaf": (deaf, "probe-deaf.service"),
    "ready": (ready, "probe-ready.service"),
}


def main():
    """Try each with both."""
    ears, report = Ears(), {}
    for name, (case, unit) in CASES.items():
        found = {manager.name: case(manager, ears, unit) for manager in (SYSTEMD, RUNNER)}
        report[name] = {**found, "same": close(found["systemd"], found["runner"])}
    code, said, _ = RUNNER.start("probe-unknown.service")
    refused = code == 2 and "MemoryMax=" in said and ears.hear(1) is None
    report["an unknown directive"] = {"code": code, "said": said, "same": refused}
    print(json.dumps(report))
    sys.exit(not all(one["same"] for one in report.values()))


main()
