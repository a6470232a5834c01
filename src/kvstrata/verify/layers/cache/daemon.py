"""The cache daemon itself: healthy, with the right chunks, DRAM tier and engines, and closed to others."""

from __future__ import annotations

from kvstrata.cluster import LMCache
from kvstrata.verify.check import Json, NotCheckedError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.layers.cache.state import LOOPBACK, State
from kvstrata.verify.shell import Reach, Shell

_GIB = 1 << 30
# An allocator rounds to its own pages; a tier of another size differs by far more.
_ROUNDING = 0.01
_MEMORY = 'grep -E "^Vm(RSS|Lck|Pin|Swap):" "/proc/$(systemctl show --property=MainPID --value -- "$1")/status"'


def health(ctx: NodeContext, lmcache: LMCache, state: State) -> str:
    """It says so itself; what is wrong with its stores alone is told by the checks of those."""
    answer = ctx.service(LOOPBACK, lmcache.http_port).json("/healthcheck")
    if answer.get("status") != "healthy":
        raise UnmetError(f"/healthcheck says {answer.get('status')!r}")
    if state.raw.get("is_healthy") is True:
        return "healthy"
    sick = [name for name, part in state.storage.items() if isinstance(part, dict) and part.get("is_healthy") is False]
    if state.sick_adapters and not sick:
        return "healthy, but for its way to the stores (cache.breaker, cache.l2)"
    named = f": {', '.join(sick)}" if sick else ""
    raise UnmetError(f"/healthcheck says healthy, /status says is_healthy false{named}")


def chunk(lmcache: LMCache, state: State) -> str:
    """Its chunks have the inventory's size."""
    size = state.raw.get("chunk_size")
    if size != lmcache.chunk_size:
        raise UnmetError(f"{size} tokens")
    return f"{size} tokens"


def tier(lmcache: LMCache, state: State, numbers: dict[str, Json]) -> str:
    """The DRAM tier is as large as the inventory says; how much of it is in use is a number."""
    declared = state.storage.get("l1_capacity_bytes_by_backend")
    if not isinstance(declared, dict):
        raise NotCheckedError("how large its DRAM tier is: this LMCache does not say")
    size = sum(int(value) for value in declared.values())
    used = _used(state, numbers)
    numbers |= {"capacity_bytes": size, "used_bytes": used}
    seen = f"{size / _GIB:.2f} GiB, {used / _GIB:.2f} in use"
    if lmcache.l1_gib is None:
        raise NotCheckedError(f"whether its DRAM tier is as large as it should be: the inventory does not say ({seen})")
    if abs(size - lmcache.l1_gib * _GIB) > lmcache.l1_gib * _GIB * _ROUNDING:
        raise UnmetError(seen)
    return seen


def _used(state: State, numbers: dict[str, Json]) -> int:
    used = 0
    managers = state.storage.get("l1_managers", {})
    for told in managers.values() if isinstance(managers, dict) else ():
        used += int(told.get("memory_used_bytes", 0))
        for name in ("total_object_count", "read_locked_count", "write_locked_count"):
            before = numbers.get(name, 0)
            numbers[name] = (before if isinstance(before, int) else 0) + int(told.get(name, 0))
    return used


def memory(ctx: NodeContext, lmcache: LMCache) -> dict[str, Json]:
    """What of its memory is resident, locked, pinned and swapped, in bytes; empty where the kernel can't be asked."""
    done = ctx.shell.run(["sh", "-c", _MEMORY, "memory", lmcache.unit])
    found: dict[str, Json] = {}
    for line in done.stdout.splitlines() if done.exit_code == 0 else ():
        name, _, rest = line.partition(":")
        words = rest.split()
        if name.startswith("Vm") and len(words) == 2 and words[0].isdigit():
            found[f"{name[2:].lower()}_bytes"] = int(words[0]) * 1024
    return found


def engines(ctx: NodeContext, state: State, numbers: dict[str, Json]) -> str:
    """Every engine of the node is registered."""
    raw = state.raw
    count = len(raw.get("registered_gpu_ids", [])) + len(raw.get("registered_non_cuda_instance_ids", []))
    numbers["registered"] = count
    if count < sum(engine.has_model for engine in ctx.node.engines):
        raise UnmetError(f"{count}: an engine runs without its cache")
    return f"{count}"


def closed(ctx: NodeContext, lmcache: LMCache) -> str:
    """Nobody but the node itself reaches its HTTP API."""
    host, port = ctx.node.fabric_host, lmcache.http_port
    if host in (LOOPBACK, "localhost"):
        # Where it is meant to listen.
        raise NotCheckedError(f"that others do not reach it: the inventory knows this node as {host}, which none does")
    # From the node itself: shows where it listens. From another: shows what the network lets through.
    vantage: list[tuple[str, Shell]] = [(ctx.node.name, ctx.shell)]
    if ctx.peer is not None:
        vantage.append((ctx.peer.node.name, ctx.peer.shell))
    seen = {name: shell.probe(host, port) for name, shell in vantage}
    said = ", ".join(f"{reach.value} from {name}" for name, reach in seen.items())
    if Reach.OPEN in seen.values():
        raise UnmetError(said)
    return said
