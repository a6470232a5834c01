"""What systemd and the runner do with the same units in time: order, readiness, restarts, stops. Prints JSON."""

import json
import os
import sys
import time

from listen import Ears, Runner, Systemd

# Of a node that shares two cores with everything else.
SLACK_S = 0.9


def words(manager, ears, units, quiet_s=2.5):
    """Return exit code of a start and of a stop, and which commands ran, in their order."""
    code = manager.start(*units)[0] != 0
    heard = drain(ears, quiet_s)
    stopped = manager.stop(*units)[0] != 0
    heard += ["--stop--", *drain(ears, 0.5)]
    return {"start_failed": code, "stop_failed": stopped, "ran": heard}


def drain(ears, quiet_s):
    found = []
    while (said := ears.hear(quiet_s)) is not None:
        found.append(said["word"])
    return found


def starts(manager, ears, unit):
    """Return how often it is started, and the gaps between two starts."""
    manager.start(unit)
    moments = []
    while (said := ears.hear(4)) is not None:
        moments.append(said["at"])
    manager.stop(unit)
    return {"starts": len(moments), "gaps_s": [later - earlier for earlier, later in zip(moments, moments[1:])]}


def deaf(manager, ears):
    """Return the seconds of a stop that nobody hears, and what is left behind."""
    manager.start("probe-deaf.service")
    said = ears.hear(20)
    seconds = manager.stop("probe-deaf.service")[2]
    return {"stop_s": seconds, "left": [pid for pid in (said["pid"], said["child"]) if os.path.exists(f"/proc/{pid}")]}


def ready(manager, ears):
    code, _, _ = manager.start("probe-ready.service")
    done = time.monotonic()
    said = ears.hear(20)
    manager.stop("probe-ready.service")
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


def main():
    ears, report = Ears(), {}
    cases = {
        "steps": lambda m: words(m, ears, ["probe-steps.service"]),
        "a step before fails": lambda m: words(m, ears, ["probe-refused.service"]),
        "order": lambda m: words(m, ears, ["probe-after.service"]),
        "no program": lambda m: words(m, ears, ["probe-missing.service"]),
        "restarts": lambda m: starts(m, ears, "probe-again.service"),
        "a clean end": lambda m: starts(m, ears, "probe-clean.service"),
        "deaf": lambda m: deaf(m, ears),
        "ready": lambda m: ready(m, ears),
    }
    for name, case in cases.items():
        found = {manager.name: case(manager) for manager in (Systemd(), Runner())}
        report[name] = {**found, "same": close(found["systemd"], found["runner"])}
    code, said, _ = Runner().start("probe-unknown.service")
    report["an unknown directive"] = {"code": code, "said": said, "same": code == 2 and "MemoryMax=" in said and ears.hear(1) is None}
    print(json.dumps(report))
    sys.exit(not all(one["same"] for one in report.values()))


main()
