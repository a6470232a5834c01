from __future__ import annotations

import pytest

from kvstrata.bench.counters import flushed_at_shutdown, flushed_at_start, parse_stats
from kvstrata.bench.sizes import GIB, KIB, MIB, parse_size, show_size
from kvstrata.bench.statistics import amplification, mb_per_s, median_of, paired_ratio, per_gib, percentile


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([7.0], 50, 7.0),
        ([7.0], 99, 7.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.0),
        ([float(n) for n in range(1, 101)], 95, 95.0),
        ([float(n) for n in range(1, 101)], 99, 99.0),
        ([float(n) for n in range(1, 101)], 100, 100.0),
        ([1.0, 2.0, 1000.0], 99, 1000.0),
    ],
)
def test_a_percentile_is_a_value_that_occurred(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], 0), ([1.0], 101)])
def test_a_percentile_of_nothing_or_outside_its_range_is_refused(values: list[float], percent: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, percent)


def test_rates_are_decimal_and_cpu_is_per_binary_gib() -> None:
    assert mb_per_s(2_000_000, 0.5) == 4.0
    assert per_gib(3.0, 2 * GIB) == 1.5


def test_amplification_is_bytes_moved_for_each_byte_asked_and_missing_without_its_counter() -> None:
    assert amplification(5 * MIB, 4 * MIB) == 1.25
    assert amplification(0, MIB) == 0.0
    assert amplification(None, MIB) is None


def test_a_ratio_pairs_the_rounds_so_that_drift_between_them_cancels() -> None:
    assert paired_ratio({1: 50, 2: 100, 3: 400}, {1: 100, 2: 200, 3: 800}) == 0.5
    # Medians alone would say 100 / 200 here; the rounds say otherwise.
    assert paired_ratio({1: 100, 2: 90, 3: 300}, {1: 200, 2: 100, 3: 300}) == 0.9


def test_a_ratio_uses_only_rounds_that_both_have() -> None:
    assert paired_ratio({1: 1, 2: 8}, {2: 4, 3: 1}) == 2.0
    assert paired_ratio({1: 1}, {2: 1}) is None
    assert paired_ratio({}, {1: 1}) is None


def test_a_median_leaves_out_what_was_not_measured() -> None:
    assert median_of([None, 3.0, 1.0, 2.0]) == 2.0
    assert median_of([None, None]) is None


STATS = """{"rocksdb.wal.bytes": 100, "rocksdb.flush.write.bytes": 20, "rocksdb.compact.write.bytes": 3,
 "rocksdb.blobdb.blob.file.bytes.written": 5000, "rocksdb.last.level.read.bytes": 40,
 "rocksdb.non.last.level.read.bytes": 2, "rocksdb.db.get.micros": [1, 2, 3, 4, 5, 6]}"""


def test_written_is_wal_flush_and_compaction_and_not_the_blobs_twice() -> None:
    counters = parse_stats(STATS)
    assert (counters.written, counters.read) == (123, 42)


def test_stats_of_another_shape_are_an_error_and_not_zero() -> None:
    with pytest.raises(KeyError, match="wal"):
        parse_stats(STATS.replace("rocksdb.wal.bytes", "wal"))
    with pytest.raises(TypeError, match=r"rocksdb\.wal\.bytes"):
        parse_stats(STATS.replace("100", "[100]"))


def test_only_what_no_ticker_counts_is_taken_from_the_files() -> None:
    before = {"1.sst": 10, "2.blob": 100}
    after = {**before, "3.sst": 7, "4.blob": 50}
    assert flushed_at_shutdown(before, after) == 57
    assert flushed_at_start(before, after) == 50
    assert flushed_at_shutdown(before, {"2.blob": 100}) == 0


@pytest.mark.parametrize(
    ("text", "size"), [("64KiB", 64 * KIB), ("1 MiB", MIB), ("2GiB", 2 * GIB), ("12", 12), (12, 12), ("12B", 12)]
)
def test_sizes_are_binary(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["1MB", "1m", "-1", "1.5MiB", "", "MiB"])
def test_a_size_that_could_be_misread_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size; allowed"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"), [(64 * KIB, "64 KiB"), (MIB, "1 MiB"), (3 * GIB, "3 GiB"), (MIB + 1, "1048577 B")]
)
def test_a_size_is_shown_exactly(size: int, text: str) -> None:
    assert show_size(size) == text
