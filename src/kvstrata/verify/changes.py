"""Differences as lines for people."""

from __future__ import annotations

from collections.abc import Iterator

from kvstrata.verify.compare import CheckChange, Differences, VersionChange

# As many hosts are named; the JSON holds them all.
_NAMED = 5


def lines(differences: Differences) -> Iterator[str]:
    """Yield a title, then a line for each change, or that there is none."""
    yield f"changed since {differences.before or 'a run without a time'}:"
    if not differences.any:
        yield f"  nothing (times to first token may differ by {differences.tolerance:.0%})"
    for check in differences.checks:
        yield f"  {_check(check)}"
    for time in differences.times:
        slow, fast = max(time.before_s, time.after_s), min(time.before_s, time.after_s)
        moved = f"{slow / fast:.2f}x {'as long' if time.after_s > time.before_s else 'faster'}"
        yield (
            f"  time to first token, {time.step} on {time.node}: {time.before_s:.2f} s -> {time.after_s:.2f} s, {moved}"
        )
    groups: dict[tuple[str, str | None, str | None], list[str]] = {}
    for change in differences.versions:
        groups.setdefault((_name(change), change.before, change.after), []).append(change.host)
    for (name, before, after), hosts in groups.items():
        yield f"  {name}: {before or 'none'} -> {after or 'none'} on {_hosts(hosts)}"
    if differences.nodes_added:
        yield f"  nodes added: {_hosts(differences.nodes_added)}"
    if differences.nodes_gone:
        yield f"  nodes no longer under verification: {_hosts(differences.nodes_gone)}"
    for remark in differences.remarks:
        yield f"  not compared, {remark}"


def _check(change: CheckChange) -> str:
    turn = f"{change.before or 'absent'} -> {change.after or 'absent'}"
    return f"{change.kind}: {change.host}: {change.what} ({change.id}), {turn}: {change.seen}"


def _name(change: VersionChange) -> str:
    """Whose version: of a service its name, of the system only what is versioned."""
    if change.of.startswith("SSH "):
        return change.name
    return f"{change.of.partition(' ')[0]} {change.name}"


def _hosts(names: list[str] | tuple[str, ...]) -> str:
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - _NAMED} more" if len(unique) > _NAMED else ""
    return f"{', '.join(unique[:_NAMED])}{more}"
