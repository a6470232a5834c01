"""Which units a start brings with it, and in which order: Requires=, Wants=, After= and Before=."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from kvstrata.unit_runner.directives import service
from kvstrata.unit_runner.errors import UnitError
from kvstrata.unit_runner.files import UnitFile
from kvstrata.unit_runner.service import Service

Find = Callable[[str], UnitFile | None]


def load(names: Iterable[str], find: Find) -> tuple[dict[str, Service], list[str]]:
    """Return the services by name with all that they pull in, and what was wanted and is not there.

    Raises:
        UnitError: one of `names`, or what one requires, is not there or cannot be run. Nothing was started.
    """
    loaded: dict[str, Service] = {}
    missing: list[str] = []
    waiting = [(name, True) for name in names]
    while waiting:
        name, needed = waiting.pop()
        if name in loaded:
            continue
        # Targets have no process: what they stand for is the host's own matter where there is no systemd.
        if not name.endswith(".service"):
            if needed:
                raise UnitError(f"{name}: allowed: services; a host without systemd has no targets, mounts or timers")
            continue
        found = find(name)
        if found is None:
            if needed:
                raise UnitError(f"{name}: no such unit")
            missing.append(name)
            continue
        loaded[name] = service(found)
        _check_mounts(loaded[name], find)
        waiting += [(each, True) for each in loaded[name].requires] + [(each, False) for each in loaded[name].wants]
    return loaded, sorted(set(missing))


def ordered(services: Mapping[str, Service]) -> list[Service]:
    """Return the services, each after those that it is to start after; of others, by name.

    Raises:
        UnitError: they wait for each other.
    """
    earlier: dict[str, set[str]] = {
        name: {each for each in one.after if each in services} for name, one in services.items()
    }
    for name, one in services.items():
        for each in one.before:
            if each in earlier:
                earlier[each].add(name)
    found: list[Service] = []
    while earlier:
        free = sorted(name for name, before in earlier.items() if not before)
        if not free:
            raise UnitError(f"{', '.join(sorted(earlier))} wait for each other (After=, Before=)")
        found += [services[name] for name in free]
        earlier = {name: before - set(free) for name, before in earlier.items() if name not in free}
    return found


def _check_mounts(one: Service, find: Find, is_mount: Callable[[Path], bool] = Path.is_mount) -> None:
    """Refuse a service whose folder a mount unit should mount and does not."""
    for path in one.mounts_for:
        for folder in (Path(path), *Path(path).parents):
            unit = _mount_unit(folder)
            if unit and find(unit) is not None and not is_mount(folder):
                raise UnitError(
                    f"{one.name}: RequiresMountsFor={path}: {unit} is there and {folder} is not mounted; mount it"
                )


def _mount_unit(folder: Path) -> str | None:
    parts: Sequence[str] = folder.parts[1:]
    if not parts:
        return None
    return "-".join(part.replace("\\", "\\x5c").replace("-", "\\x2d") for part in parts) + ".mount"
