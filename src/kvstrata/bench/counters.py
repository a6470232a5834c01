"""What Kvrocks itself counts: RocksDB's tickers, and the data files that appear.

Tickers come from the command STATS (all of RocksDB's, as JSON); `INFO rocksdb` has only the block cache's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_DATA_SUFFIXES = (".sst", ".blob")


@dataclass(frozen=True)
class Counters:
    """Bytes that RocksDB says it moved since its start."""

    written: int = 0
    read: int = 0

    def __add__(self, other: Counters) -> Counters:
        """Return the sum."""
        return Counters(self.written + other.written, self.read + other.read)


def parse_stats(text: str) -> Counters:
    """Return the counters from the answer of STATS.

    Written: WAL + flushes + compactions. The latter two are the I/O statistics of the whole job (RocksDB's
    FlushJob::RecordFlushIOStats, CompactionJob::RecordCompactionIOStats) and contain its blob files, so the blob
    tickers are not added. Read: what its file readers fetched, from whatever level, blob files included
    (RandomAccessFileReader's RecordIOStats).
    """
    stats: Mapping[str, object] = json.loads(text)
    return Counters(
        written=_sum(stats, ("rocksdb.wal.bytes", "rocksdb.flush.write.bytes", "rocksdb.compact.write.bytes")),
        read=_sum(stats, ("rocksdb.last.level.read.bytes", "rocksdb.non.last.level.read.bytes")),
    )


def _sum(stats: Mapping[str, object], names: Iterable[str]) -> int:
    total = 0
    for name in names:
        value = stats[name]
        if not isinstance(value, int):
            raise TypeError(f"STATS: {name} is no number but {value!r}")
        total += value
    return total


def data_files(folder: Path) -> dict[str, int]:
    """Return the sizes of the SST and blob files below a folder, by path."""
    found = {}
    for path in folder.rglob("*"):
        if path.suffix in _DATA_SUFFIXES:
            try:
                found[str(path)] = path.stat().st_size
            except FileNotFoundError:  # deleted by a compaction meanwhile
                continue
    return found


def flushed_at_shutdown(before: Mapping[str, int], after: Mapping[str, int]) -> int:
    """Return the bytes of the files that are new: no ticker can be asked for them, for the server has ended."""
    return sum(size for path, size in after.items() if path not in before)


def flushed_at_start(before: Mapping[str, int], after: Mapping[str, int]) -> int:
    """Return the bytes of the blob files that are new.

    What RocksDB flushes from the WAL at its start, it counts as a compaction, but the SST files alone
    (DBImpl::WriteLevel0TableForRecovery).
    """
    return sum(size for path, size in after.items() if path not in before and path.endswith(".blob"))
