"""What a store can take of a host's memory, from its directives and from how Kvrocks 2.10.1 uses RocksDB.

Kvrocks opens seven column families and bounds the memtables of each by itself, with no bound over all:
write_buffer_size times max_write_buffer_number. What the cache writes (hashes of pieces, or plain strings) puts the
values into one of them and small metadata into another; the other five stay almost empty. So the bound that can be
reached is that of one family, and one memtable of a second, whose bloom filter takes a tenth more.
"""

from __future__ import annotations

from collections.abc import Mapping

from kvstrata.kvrocks.directives import DIRECTIVES

MIB = 1 << 20
_QUIET_FAMILIES_MIB = 5 * 2
# Three families have no part in the shared block cache, and RocksDB gives a table without one 32 MiB.
_OWN_CACHES_MIB = 3 * 32
# Code, statistics, table readers, compaction's own buffers.
_PROCESS_MIB = 128
# Requests and replies of a few MiB in flight on each worker.
_WORKER_MIB = 16
# What an allocator keeps beyond what is in use.
_FRAGMENTATION = 1.1


def kvrocks_mib(given: Mapping[str, str]) -> int:
    """Return the most MiB that one Kvrocks with these directives is expected to take.

    Args:
        given: directives by name, as kvstrata.kvrocks.config.directives returns them; others have their defaults.
    """

    def value(name: str) -> int:
        return int(given.get(name, DIRECTIVES[name].default))

    memtable = value("rocksdb.write_buffer_size")
    memtables = memtable * value("rocksdb.max_write_buffer_number") + 1.1 * memtable + _QUIET_FAMILIES_MIB
    cache = value("rocksdb.block_cache_size") or (
        value("rocksdb.subkey_block_cache_size") + value("rocksdb.metadata_block_cache_size")
    )
    caches = cache + value("rocksdb.row_cache_size") + _OWN_CACHES_MIB
    process = _PROCESS_MIB + value("workers") * _WORKER_MIB
    return round((memtables + caches) * _FRAGMENTATION + process)


def redis_mib(maxmemory_mib: int) -> int:
    """Return the most MiB that redis-server with this maxmemory is expected to take."""
    return round(maxmemory_mib * _FRAGMENTATION + 64)
