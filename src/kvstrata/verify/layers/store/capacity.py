"""Whether a store has room: by the cache's own count, by its files, on its drive, and as its answers to writes say."""

from __future__ import annotations

from dataclasses import dataclass

from kvstrata.cluster import Limits, Store
from kvstrata.verify.check import Json, UnmetError
from kvstrata.verify.layers.store.access import RefusedError
from kvstrata.verify.layers.store.look import Seen
from kvstrata.verify.shell import Shell

_GIB = float(1 << 30)


@dataclass(frozen=True)
class Space:
    """A file system's size and what of it is free for a store."""

    bytes: int
    free_bytes: int


def told(seen: Seen) -> Space | None:
    """The file system of its data, as Kvrocks reports it; None where it does not."""
    size = int(seen.number("disk_capacity"))
    return Space(size, size - int(seen.number("used_disk_size"))) if seen.kvrocks and size else None


def asked(shell: Shell, mount: str) -> Space:
    """The file system of a drive, as its node sees it; UnableError when it cannot say."""
    block, blocks, free = (int(word) for word in shell.run(["stat", "-f", "-c", "%S %b %a", mount]).text().split())
    return Space(block * blocks, block * free)


def judge(
    store: Store,
    seen: Seen,
    space: Space | None,
    limits: Limits,
    refusal: RefusedError | None,
    numbers: dict[str, Json],
) -> str:
    """What `store.capacity` sees; UnmetError says what is full, and by what."""
    used, capacity = sum(seen.used_bytes.values()), store.capacity_bytes
    numbers |= {"used_bytes": used, "capacity_bytes": capacity, "namespaces": dict(seen.used_bytes)}
    said = [f"chunks {used / _GIB:.2f} of {capacity / _GIB:.2f} GiB"]
    wrong = []
    if used > capacity * (1 + limits.store_over_share):
        wrong.append(f"its chunks take {used / capacity - 1:.1%} more than its capacity")
    for part, problem in (_files(seen, numbers), _drive(space, limits, numbers), _memory(seen, numbers)):
        said += [part] * bool(part)
        wrong += [problem] * bool(problem)
    if refusal is not None:
        wrong.append(str(refusal))
    text = ", ".join(said)
    if wrong:
        raise UnmetError(f"{text}: {'; '.join(wrong)}")
    return text


def _files(seen: Seen, numbers: dict[str, Json]) -> tuple[str, str]:
    """Kvrocks' own bound: at max-db-size it refuses every write."""
    if not seen.kvrocks:
        return "", ""
    files, limit = int(seen.number("used_db_size")), int(seen.number("max_db_size"))
    numbers |= {"files_bytes": files, "files_limit_bytes": limit or None}
    if not limit:
        return f"files {files / _GIB:.2f} GiB, without a limit", ""
    return (
        f"files {files / _GIB:.2f} of {limit / _GIB:.0f} GiB (max-db-size)",
        "its files have reached max-db-size" if files >= limit else "",
    )


def _drive(space: Space | None, limits: Limits, numbers: dict[str, Json]) -> tuple[str, str]:
    """The file system under it."""
    if space is None:
        return "", ""
    size, free = space.bytes, space.free_bytes
    numbers |= {"drive_bytes": size, "drive_free_bytes": free}
    return (
        f"drive {free / size:.0%} free",
        f"of its file system only {free / size:.1%} is free, at least {limits.drive_free_share:.1%} should be"
        if free < size * limits.drive_free_share
        else "",
    )


def _memory(seen: Seen, numbers: dict[str, Json]) -> tuple[str, str]:
    """Where redis-server stands in for the drive."""
    limit = int(seen.number("maxmemory"))
    if seen.kvrocks or not limit:
        return "", ""
    used = int(seen.number("used_memory"))
    numbers |= {"memory_bytes": used, "memory_limit_bytes": limit}
    return (
        f"memory {used / _GIB:.2f} of {limit / _GIB:.2f} GiB",
        "its memory has reached maxmemory" if used >= limit else "",
    )
