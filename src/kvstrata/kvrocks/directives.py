"""The directives of Kvrocks 2.10.1 as data: type, range, default, and whether a running server takes a new value.

Kvrocks refuses to start for a value out of range, and only warns, on its standard output, of a name that it does not
know. So both are refused here, before anything is written. Another version may know others: the role has the binary
itself read what was rendered before it is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

VERSION = "2.10.1"
_INT = 2**31 - 1
_LONG = 2**63 - 1


class Kind(StrEnum):
    """How a value is written."""

    YES_NO = "yes or no"
    NUMBER = "a whole number"
    SIZE = "a whole number of bytes, or with one of K, M, G, T, P"
    CHOICE = "a choice"
    TEXT = "text on one line"


@dataclass(frozen=True)
class Directive:
    """One directive of kvrocks.conf."""

    name: str
    kind: Kind
    live: bool
    """Whether CONFIG SET changes it; otherwise only a restart does."""
    default: str
    lowest: int = 0
    highest: int = _INT
    unit: str = ""
    choices: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """What is accepted, in words."""
        if self.kind is Kind.CHOICE:
            return ", ".join(self.choices)
        if self.kind in (Kind.NUMBER, Kind.SIZE):
            ends = f"{self.lowest} to {self.highest}" if self.highest < _INT else f"{self.lowest} or more"
            return f"{self.kind}, {ends}" + (f" ({self.unit})" if self.unit else "")
        return str(self.kind)

    def canonical(self, value: object) -> str:
        """Return a value as CONFIG GET reports it, so that what was rendered can be compared with what runs.

        Raises:
            ValueError: if the value is of another type or out of range.
        """
        if self.kind is Kind.YES_NO:
            return _yes_no(value)
        if self.kind is Kind.CHOICE:
            # YAML reads a bare no, which many choices have, as false.
            text = ("yes" if value else "no") if isinstance(value, bool) else str(value).lower()
            if text not in self.choices:
                raise ValueError(value)
            return text
        if self.kind is Kind.TEXT:
            if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).isprintable():
                raise ValueError(value)
            return str(value)
        number = _bytes(value) if self.kind is Kind.SIZE else _whole(value)
        if not self.lowest <= number <= self.highest:
            raise ValueError(value)
        return str(number)


def _yes_no(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if str(value).lower() not in ("yes", "no"):
        raise ValueError(value)
    return str(value).lower()


def _whole(value: object) -> int:
    # A bool is an int to Python, and a number with a fraction none to Kvrocks.
    if isinstance(value, bool) or not re.fullmatch(r"-?\d+", str(value)):
        raise ValueError(value)
    return int(str(value))


def _bytes(value: object) -> int:
    match = re.fullmatch(r"(\d+)([kmgtp]?)", str(value).lower())
    if isinstance(value, bool) or not match:
        raise ValueError(value)
    return int(match[1]) << (10 * " kmgtp".index(match[2] or " "))


def _yn(name: str, default: str, *, live: bool = True) -> Directive:
    return Directive(name, Kind.YES_NO, live, default)


def _num(name: str, default: int, low: int = 0, high: int = _INT, unit: str = "", *, live: bool = True) -> Directive:
    return Directive(name, Kind.NUMBER, live, str(default), low, high, unit)


def _text(name: str, default: str = "", *, live: bool = True) -> Directive:
    return Directive(name, Kind.TEXT, live, default)


def _choice(name: str, default: str, *choices: str, live: bool = True) -> Directive:
    return Directive(name, Kind.CHOICE, live, default, choices=choices)


_SERVER = (
    _num("workers", 8, 1, 256),
    _num("timeout", 0, unit="s"),
    _num("tcp-backlog", 511, live=False),
    _num("maxclients", 10240),
    _num("max-backup-to-keep", 1, 0, 1),
    _num("max-backup-keep-hours", 0, unit="h"),
    _text("compact-cron"),
    _text("bgsave-cron"),
    _text("dbsize-scan-cron"),
    _text("compaction-checker-range"),
    _text("compaction-checker-cron"),
    _num("force-compact-file-age", 172800, 60, _LONG, "s"),
    _num("force-compact-file-min-deleted-percentage", 10, 1, 100, "%"),
    _text("backup-dir"),
    _choice("log-level", "info", "info", "warning", "error", "fatal"),
    _num("max-io-mb", 0, unit="MiB/s"),
    _num("max-bitmap-to-string-mb", 16, unit="MiB"),
    _num("profiling-sample-ratio", 0, 0, 100, "%"),
    _num("profiling-sample-record-max-len", 256),
    _num("profiling-sample-record-threshold-ms", 100, unit="ms"),
    _text("profiling-sample-commands"),
    _num("slowlog-log-slower-than", 200000, -1, unit="µs"),
    _num("slowlog-max-len", 128),
    _yn("auto-resize-block-and-sst", "yes"),
    _yn("redis-cursor-compatible", "yes"),
    _yn("resp3-enabled", "no"),
    Directive("proto-max-bulk-len", Kind.SIZE, True, str(512 << 20), 1 << 20, _LONG, "bytes, Kvrocks' suffixes"),
    _num("json-max-nesting-depth", 1024),
    _choice("json-storage-format", "json", "json", "cbor"),
    _yn("txn-context-enabled", "no", live=False),
)

_ROCKSDB = (
    _choice("rocksdb.compression", "no", "no", "snappy", "zlib", "lz4", "zstd"),
    _num("rocksdb.compression_level", 32767, -_INT, live=False),
    _num("rocksdb.block_size", 16384, unit="bytes", live=False),
    _num("rocksdb.max_open_files", 8096, -1),
    _num("rocksdb.write_buffer_size", 64, 0, 4096, "MiB"),
    _num("rocksdb.max_write_buffer_number", 4, 0, 256),
    _num("rocksdb.target_file_size_base", 128, 1, 1024, "MiB"),
    _num("rocksdb.max_background_jobs", 4, 0, 32),
    _num("rocksdb.max_background_compactions", 2, -1, 32),
    _num("rocksdb.max_background_flushes", 2, -1, 32, live=False),
    _num("rocksdb.max_subcompactions", 2, 0, 16),
    _num("rocksdb.delayed_write_rate", 0, 0, _LONG, "bytes/s"),
    _num("rocksdb.wal_ttl_seconds", 10800, unit="s", live=False),
    _num("rocksdb.wal_size_limit_mb", 16384, unit="MiB", live=False),
    _num("rocksdb.max_total_wal_size", 512, unit="MiB"),
    _yn("rocksdb.disable_auto_compactions", "no"),
    _yn("rocksdb.enable_pipelined_write", "no", live=False),
    _num("rocksdb.stats_dump_period_sec", 0, unit="s"),
    _yn("rocksdb.cache_index_and_filter_blocks", "yes", live=False),
    _num("rocksdb.block_cache_size", 0, unit="MiB", live=False),
    _choice("rocksdb.block_cache_type", "lru", "lru", "hcc", live=False),
    _num("rocksdb.subkey_block_cache_size", 2048, unit="MiB", live=False),
    _num("rocksdb.metadata_block_cache_size", 2048, unit="MiB", live=False),
    _yn("rocksdb.share_metadata_and_subkey_block_cache", "yes", live=False),
    _num("rocksdb.row_cache_size", 0, unit="MiB", live=False),
    _num("rocksdb.compaction_readahead_size", 2 << 20, 0, 64 << 20, "bytes"),
    _num("rocksdb.level0_slowdown_writes_trigger", 20, 1, 1024),
    _num("rocksdb.level0_stop_writes_trigger", 40, 1, 1024),
    _num("rocksdb.level0_file_num_compaction_trigger", 4, 1, 1024),
    _yn("rocksdb.enable_blob_files", "no"),
    _num("rocksdb.min_blob_size", 4096, unit="bytes"),
    _num("rocksdb.blob_file_size", 256 << 20, unit="bytes, below 2 GiB"),
    _yn("rocksdb.enable_blob_garbage_collection", "yes"),
    _num("rocksdb.blob_garbage_collection_age_cutoff", 25, 0, 100, "%"),
    _num("rocksdb.max_bytes_for_level_base", 256 << 20, unit="bytes, below 2 GiB"),
    _num("rocksdb.max_bytes_for_level_multiplier", 10, 1, 100),
    _yn("rocksdb.level_compaction_dynamic_level_bytes", "no"),
    _yn("rocksdb.rate_limiter_auto_tuned", "yes", live=False),
    _yn("rocksdb.avoid_unnecessary_blocking_io", "yes", live=False),
    _yn("rocksdb.write_options.sync", "no", live=False),
    _yn("rocksdb.write_options.disable_wal", "no", live=False),
    _yn("rocksdb.write_options.no_slowdown", "no", live=False),
    _yn("rocksdb.write_options.low_pri", "no", live=False),
    _yn("rocksdb.write_options.memtable_insert_hint_per_batch", "no", live=False),
    _num("rocksdb.write_options.write_batch_max_bytes", 0, unit="bytes"),
    _yn("rocksdb.read_options.async_io", "yes"),
)

DIRECTIVES: Mapping[str, Directive] = {each.name: each for each in (*_SERVER, *_ROCKSDB)}
"""What `kvrocks_config` may set."""

PER_STORE: Mapping[str, Directive] = {
    each.name: each
    for each in (
        _text("bind", live=False),
        _num("port", 6666, 1, 65535, live=False),
        _text("dir", live=False),
        _text("log-dir", live=False),
        _choice("supervised", "no", "no", "auto", "upstart", "systemd", live=False),
        _yn("daemonize", "no", live=False),
        _num("max-db-size", 0, unit="GiB"),
        _text("unixsocket", live=False),
        _text("unixsocketperm", "777", live=False),
        _num("tls-port", 0, 0, 65535, live=False),
        _text("tls-cert-file"),
        _text("tls-key-file"),
        _text("tls-ca-cert-file"),
        _text("tls-auth-clients"),
    )
}
"""What the role sets from variables of its own, one value for each store."""

_NO_REPLICAS = "stores of kvstrata are alone: a lost drive costs its share of a cache, so nothing replicates it"
OWNED: Mapping[str, str] = {
    "bind": "set by kvstrata_fabric_address and kvrocks_bind_also",
    "port": "set by kvrocks_first_port",
    "dir": "the mount of the drive",
    "db-name": "nothing in it: one database for each store",
    "log-dir": "stdout, read with journalctl",
    "log-retention-days": "nothing to retain: logs go to the journal",
    "pidfile": "not needed: systemd keeps the process",
    "daemonize": "no, for systemd keeps the process",
    "supervised": "no, for Kvrocks is ready later than it says",
    "requirepass": "generated for each store on the controller",
    "max-db-size": "set by store_gib of kvstrata_drives",
    "unixsocket": "set by kvrocks_unix_socket",
    "unixsocketperm": "set by kvrocks_unix_socket",
    "rename-command": "no renamed commands: the cache's client needs those it uses by their names",
    "cluster-enabled": "no: the client spreads the keys itself",
    "slaveof": _NO_REPLICAS,
    "masterauth": _NO_REPLICAS,
}
"""Directives that exist and are not for `kvrocks_config`, and who sets them instead."""

IGNORED = frozenset(
    {
        "socket-fd",
        "replication-connect-timeout-ms",
        "replication-recv-timeout-ms",
        "enable-blob-cache",
        "min-write-buffer-number-to-merge",
        "wal-compression",
        "dump-malloc-stats",
        "compression-start-level",
        "partition-filters",
    }
)
"""Directives of other versions and other programs that configurations in the wild carry, with "-" for "_"."""


def is_ignored(name: str) -> bool:
    """Tell whether a directive is one of those that Kvrocks passes over, with or without its prefix."""
    return name.removeprefix("rocksdb.").replace("_", "-") in IGNORED


def live_names(names: Iterable[str]) -> list[str]:
    """Return those of the names that CONFIG SET changes."""
    both = {**DIRECTIVES, **PER_STORE}
    return [name for name in names if both[name].live]
