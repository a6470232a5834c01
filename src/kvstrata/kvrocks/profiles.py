"""Profiles: named sets of directives. Why each value is there stands in docs/kvrocks.md."""

from __future__ import annotations

from collections.abc import Mapping

_COMMON: Mapping[str, object] = {
    "workers": 8,
    "maxclients": 10000,
    "timeout": 0,
    "tcp-backlog": 4096,
    "slowlog-log-slower-than": 200000,
    "rocksdb.compression": "no",
    "rocksdb.wal_ttl_seconds": 0,
    "rocksdb.wal_size_limit_mb": 0,
    "rocksdb.max_total_wal_size": 2048,
    "rocksdb.write_buffer_size": 256,
    "rocksdb.max_write_buffer_number": 6,
    "rocksdb.row_cache_size": 0,
}

_BLOBS: Mapping[str, object] = {
    "rocksdb.enable_blob_files": "yes",
    "rocksdb.min_blob_size": 65536,
    "rocksdb.enable_blob_garbage_collection": "yes",
    "rocksdb.blob_garbage_collection_age_cutoff": 10,
    "rocksdb.block_cache_size": 256,
}

PROFILES: Mapping[str, Mapping[str, object]] = {
    # What was measured at the speed of the raw drive. A crash costs the newest values, which a cache can bear.
    "ssd_cache": {**_COMMON, **_BLOBS, "rocksdb.write_options.disable_wal": "yes"},
    # Nothing acknowledged is lost, for twice the writing.
    "ssd_durable": {**_COMMON, **_BLOBS, "rocksdb.write_options.disable_wal": "no"},
    # Values inside the tree, because only there does the block cache hold them: for a set that fits in DRAM.
    "dram": {
        **_COMMON,
        "rocksdb.enable_blob_files": "no",
        "rocksdb.block_cache_size": 4096,
        "rocksdb.write_options.disable_wal": "yes",
    },
}
DEFAULT = "ssd_cache"
