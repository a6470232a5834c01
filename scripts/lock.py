#!/usr/bin/env python3
"""Resolve a wheelhouse of artifacts.lock.yml anew and write its lock: `scripts/lock.py cuda`. Downloads no wheel."""

from __future__ import annotations

import subprocess
import sys

from kvstrata.artifacts.lock import LockError, read_lock
from kvstrata.artifacts.resolve import resolve, write
from kvstrata.paths import PROJECT

# NVIDIA Dynamo asks for both: aisimulate fetches its contents from elsewhere when it is installed, and nothing here
# runs on Kubernetes.
LEFT_OUT = ("aisimulate", "kubernetes")


def main(name: str) -> int:
    """Write the lock of the wheelhouse `name` from locks/node-KIND.in; say how large it is."""
    house = read_lock(PROJECT / "artifacts.lock.yml").wheelhouse(name)
    wanted = house.lock.with_name(house.lock.stem.rsplit("-", 1)[0] + ".in")
    if not wanted.exists():
        print(f"lock.py: {house.lock.name} is not resolved by this: there is no {wanted.name}", file=sys.stderr)
        return 1
    try:
        pins = resolve(house, wanted, LEFT_OUT)
    except (LockError, subprocess.CalledProcessError) as error:
        print(f"lock.py: {error}", file=sys.stderr)
        return 1
    write(house.lock, pins)
    print(f"{house.lock.name}: {len(pins)} wheels, {sum(one.size for one in pins) / 1e9:.2f} GB")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
