"""The node itself: reachable, its units running and enabled, its drives mounted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

from kvstrata.cluster import Mount
from kvstrata.verify import units
from kvstrata.verify.check import Check, UnableError, UnmetError
from kvstrata.verify.context import NodeContext

_MOUNT_COLUMNS = "TARGET,SOURCE,FSTYPE,FSROOT,MAJ:MIN,OPTIONS"


def checks(ctx: NodeContext) -> Iterator[Check]:
    """Every unit and every mount that the inventory names."""
    try:
        states = units.states(ctx.shell, ctx.node.units)
        failure = ""
    except UnableError as error:
        states, failure = {}, str(error)
    for unit in ctx.node.units:
        question = ctx.question("host.unit", unit, "active (running) and enabled at boot", ctx.journal(unit))
        yield question.error(failure) if failure else question.ask(partial(_unit, unit, states))
    for mount in ctx.node.mounts:
        yield ctx.question(
            "host.mount",
            mount.path,
            f"a mounted {mount.fstype} file system of a block device, writable",
            ctx.command(f"findmnt --target {mount.path}"),
        ).ask(partial(_mount, ctx, mount))


def _unit(unit: str, states: dict[str, units.UnitState]) -> str:
    state = states.get(unit)
    if state is None or state.load == "not-found":
        raise UnmetError("systemd knows no such unit")
    counted = f"{state.restarts} restarts by itself" if state.restarts != 1 else "1 restart by itself"
    seen = f"{state.active} ({state.sub}), {state.enabled or 'without install section'}, {counted}"
    if not state.running:
        raise UnmetError(f"{seen}, result {state.result}")
    if state.enabled != "enabled":
        raise UnmetError(seen)
    return f"{seen}, since {state.since}"


def _mount(ctx: NodeContext, mount: Mount) -> str:
    argv = ["findmnt", "--json", "--output", _MOUNT_COLUMNS, "--mountpoint", mount.path]
    done = ctx.shell.run(argv)
    if done.exit_code == 1:
        # findmnt's way to say that it found nothing.
        raise UnmetError("not a mount point")
    systems = json.loads(done.text())["filesystems"]
    # The last one mounted there is the one that is seen.
    found = systems[-1]
    options = found["options"].split(",")
    device = found["maj:min"].strip()
    seen = f"{found['fstype']} from {found['source']} ({device}), {options[0]}"
    if found["fstype"] != mount.fstype:
        raise UnmetError(seen)
    # Major number 0 is for file systems without a device: tmpfs, overlay, network file systems.
    if device.startswith("0:"):
        raise UnmetError(f"{seen}: not from a block device")
    if found["fsroot"] != "/":
        raise UnmetError(f"{seen}: the folder {found['fsroot']} of another file system, bound there")
    if "ro" in options:
        raise UnmetError(f"{seen}: read-only")
    return seen
