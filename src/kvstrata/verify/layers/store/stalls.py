"""Whether RocksDB holds up writes just now; what it counted since its start are numbers for whoever looks further."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kvstrata.verify.check import Json, UnmetError

# Counters of RocksDB, one for each column family: `level0_file_limit_stop[default]`.
_HELD_UP = re.compile(
    r"(?P<cause>level0_file_limit|pending_compaction_bytes|memtable_count_limit)_(?P<how>slowdown|stop)\["
)
_CAUSES = {
    "level0_file_limit": "too many files on level 0",
    "pending_compaction_bytes": "too much left to compact",
    "memtable_count_limit": "memtables are flushed too slowly",
}
# Newer versions of Kvrocks say so outright.
_STOPPED, _RATE = "is_write_stopped", "delayed_write_rate"
_STATE = ("memtable_flush_pending", "compaction_pending", "num_running_flushes", "num_running_compactions")
_ERRORS = "num_background_errors"


def judge(before: Mapping[str, Any], after: Mapping[str, Any], numbers: dict[str, Json]) -> str:
    """What `store.stalls` sees between two looks at INFO rocksdb; UnmetError when writes are held up meanwhile."""
    counts = totals(after)
    numbers |= {"since_start": dict(counts), **{name: _number(after, name) for name in (*_STATE, _ERRORS)}}
    was, wrong = totals(before), []
    for name, now in counts.items():
        cause, _, how = name.rpartition("_")
        more = now - was.get(name, 0)
        if more > 0:
            verb = "stopped" if how == "stop" else "slowed down"
            wrong.append(f"writes were {verb} {more} times while it was looked at: {_CAUSES[cause]}")
    failed = _number(after, _ERRORS) - _number(before, _ERRORS)
    if failed > 0:
        wrong.append(f"{failed} flushes or compactions failed while it was looked at")
    if any(_number(after, name) for name in after if name.endswith(_STOPPED)):
        wrong.append("writes are stopped")
    rates = [_number(after, name) for name in after if name.endswith(_RATE)]
    if any(rates):
        wrong.append(f"writes are slowed down to {max(rates)} bytes/s")
    if wrong:
        raise UnmetError("; ".join(wrong))
    pending = [name.replace("_", " ") for name in _STATE[:2] if _number(after, name)]
    stalls, errors = sum(counts.values()), _number(after, _ERRORS)
    said = f"writes go on; since its start {stalls} stalls, {errors} failed flushes or compactions"
    return f"{said}; {', '.join(pending)}" if pending else said


def totals(info: Mapping[str, Any]) -> dict[str, int]:
    """How often writes were held up since the start, by cause and kind, over all column families."""
    found: dict[str, int] = {}
    for name in info:
        match = _HELD_UP.match(name)
        if match:
            key = f"{match[1]}_{match[2]}"
            found[key] = found.get(key, 0) + _number(info, name)
    return found


def _number(info: Mapping[str, Any], name: str) -> int:
    value = info.get(name, 0)
    return int(value) if isinstance(value, int | float) else 0
