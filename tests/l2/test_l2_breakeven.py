"""Rates are 1e9 bytes/s and chunks 1e9 bytes, so that a second is a second."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstrata.l2 import breakeven
from kvstrata.l2.breakeven import BreakEven, Source

GB = 10**9


class Clock:
    now = 1000.0


def kept(judge: BreakEven, parts: list[dict[int, int]], known: dict[int, Source]) -> int:
    """Return how many chunks of a lookup with one row pass."""
    (count,) = judge.keep([parts], known)
    return count


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(breakeven, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def cutting(clock: Clock) -> BreakEven:
    """One that computes at 1 GB/s and has just begun to cut, one chunk."""
    made = BreakEven(1.0)
    assert kept(made, [{0: GB}], {0: Source(0.5 * GB, 0)}) == 0
    assert made.cutting
    return made


def sources(*rates: float | None, outstanding: int = 0) -> dict[int, Source]:
    return {i: Source(None if rate is None else rate * GB, outstanding) for i, rate in enumerate(rates)}


def test_switched_off_it_never_cuts() -> None:
    off = BreakEven(0)
    assert kept(off, [{0: GB}] * 10, sources(1e-9)) == 10
    assert not off.cutting


def test_an_empty_prefix_is_kept_as_it_is() -> None:
    assert BreakEven(1.0).keep([[], []], {}) == [0, 0]


def test_a_prefix_that_loads_faster_than_it_computes_is_kept(clock: Clock) -> None:
    made = BreakEven(1.0)
    assert kept(made, [{0: GB}] * 10, sources(1.01)) == 10
    assert not made.cutting
    assert made.report() == {
        "min_load_gbps": 1.0,
        "cutting": False,
        "cut_chunks": 0,
        "cut_bytes": 0,
        "probes": 0,
        "trials": 0,
        "unasked": 0,
    }


def test_a_slow_endpoint_is_cut_off_whole_and_counted(cutting: BreakEven) -> None:
    assert kept(cutting, [{0: GB}] * 10, sources(0.99)) == 0
    assert cutting.report() == {
        "min_load_gbps": 1.0,
        "cutting": True,
        "cut_chunks": 11,
        "cut_bytes": 11 * GB,
        "probes": 0,
        "trials": 0,
        "unasked": 0,
    }


def test_of_an_endpoint_that_was_never_measured_one_lookup_passes_whole(clock: Clock) -> None:
    made = BreakEven(1.0)
    assert [kept(made, [{0: GB}] * 3, sources(None)) for _ in range(3)] == [3, 0, 0]
    assert (made.cutting, made.probes, made.trials, made.cut_chunks) == (False, 0, 1, 6)
    # Once it is measured its rate decides.
    assert kept(made, [{0: GB}] * 3, sources(2)) == 3
    assert kept(made, [{0: GB}] * 3, sources(0.5)) == 0


def test_a_lookup_that_measured_nothing_is_followed_by_another(clock: Clock) -> None:
    # As where LMCache has all of it in DRAM.
    made = BreakEven(1.0)
    answers = []
    for _ in range(8):
        answers.append(kept(made, [{0: GB}] * 2, sources(None)))
        clock.now += 0.6
    assert answers == [2, 0, 0, 0, 2, 0, 0, 0]


def test_the_rows_of_a_lookup_pass_together(clock: Clock) -> None:
    # LMCache names a prompt's chunks once for each KV rank, and loads those that every rank has.
    made = BreakEven(1.0)
    rows = [[{0: GB}] * 3, [{0: GB}, {1: GB}, {0: GB}], [{1: GB}] * 3, [{0: GB}]]
    assert made.keep(rows, sources(None, None)) == [3, 3, 3, 1]
    assert made.keep(rows, sources(None, None)) == [0, 0, 0, 0]
    assert made.trials == 1


def test_each_endpoint_is_measured_by_itself(clock: Clock) -> None:
    made = BreakEven(1.0)
    assert kept(made, [{0: GB}, {1: GB}], sources(None, 10, None)) == 2
    # Number 2 is on trial now; nothing passes behind the first chunk on number 0.
    assert kept(made, [{2: GB}, {1: GB}, {0: GB}, {1: GB}], sources(None, 10, None)) == 2


def test_what_is_slow_is_cut_and_measured_again_though_another_was_never_measured(clock: Clock) -> None:
    made = BreakEven(1.0)
    parts, known = [{0: GB}, {1: GB}, {1: GB}], sources(0.1, None)
    for _ in range(30):
        kept(made, parts, known)
        clock.now += 0.1
    assert made.cutting
    assert made.probes == 1


def test_a_probe_passes_in_every_row(clock: Clock, cutting: BreakEven) -> None:
    answers = []
    for _ in range(25):
        clock.now += 0.1
        answers.append(cutting.keep([[{0: GB}] * 3, [{0: GB}] * 2], sources(0.5)))
    assert [answer for answer in answers if answer != [0, 0]] == [[1, 1]]


def test_what_was_asked_for_before_is_waited_for_first(cutting: BreakEven) -> None:
    # 3 GB wait at 2 GB/s; n chunks arrive after (3 + n) / 2 s and compute in 0.85 n s: not before n = 5.
    assert kept(cutting, [{0: GB}] * 4, sources(2, outstanding=3 * GB)) == 0
    assert kept(cutting, [{0: GB}] * 5, sources(2, outstanding=3 * GB)) == 5


def test_the_longest_prefix_counts_though_a_shorter_one_would_be_late(clock: Clock) -> None:
    # 1 GB waits at 2 GB/s: one chunk arrives after 1 s = 1 s of computing; two after 1.5 s of 2.
    made = BreakEven(1.0)
    assert kept(made, [{0: GB}], sources(2, outstanding=GB)) == 1
    assert kept(made, [{0: GB // 2}, {0: GB}], sources(2, outstanding=GB)) == 2
    assert not made.cutting


def test_the_slowest_endpoint_decides(cutting: BreakEven) -> None:
    # Endpoint 1 gives 0.1 GB/s: its tenth of a chunk takes a second.
    parts = [{0: GB}, {0: GB}, {0: 9 * GB // 10, 1: GB // 10}, {1: GB}, {0: GB}]
    # Four chunks: endpoint 1 needs 11 s, computing 4 s. Three: endpoint 1 one second, endpoint 0 2.9 / 2 s.
    assert kept(cutting, parts, sources(2, 0.1)) == 3
    assert cutting.cut_chunks == 1 + 2, "the fixture's, and two of these"
    assert cutting.cut_bytes == 3 * GB


def test_once_it_cuts_loading_must_be_15_percent_faster_before_it_stops(clock: Clock, cutting: BreakEven) -> None:
    parts = [{0: GB}] * 4
    assert kept(cutting, parts, sources(1.1)) == 0
    assert kept(cutting, parts, sources(1.17)) == 0
    assert kept(cutting, parts, sources(1.18)) == 4
    assert not cutting.cutting
    assert kept(cutting, parts, sources(1.01)) == 4, "and now the plain rate counts again"
    clock.now += 0.1
    assert kept(cutting, parts, sources(0.99)) == 0


MIB = 1 << 20


def probed(made: BreakEven, clock: Clock, every_s: float, lookups: int, gbps: float = 0.5) -> list[int]:
    """Return the numbers of the lookups that were let through; each is of four chunks of 16 MiB."""
    found = []
    for number in range(lookups):
        if passed := kept(made, [{0: 16 * MIB}] * 4, sources(gbps)):
            assert passed == 2, "as much as a measurement needs, and not all of it"
            found.append(number)
        clock.now += every_s
    return found


def test_one_lookup_in_25_is_let_through_so_that_it_can_be_measured(clock: Clock, cutting: BreakEven) -> None:
    # 32 MiB at 0.5 GB/s take 0.07 s: a hundred times as long are less than 25 lookups, one a second.
    assert probed(cutting, clock, 1.0, 80) == [24, 49, 74]
    assert cutting.probes == 3
    assert cutting.cut_chunks == 1 + 80 * 4 - 3 * 2


def test_while_lookups_come_fast_what_is_let_through_takes_a_hundredth_of_the_time(
    clock: Clock, cutting: BreakEven
) -> None:
    found = probed(cutting, clock, 0.01, 3000)
    seconds = 32 * MIB / (0.5 * GB)
    # The first is due two seconds after it began to cut, the others a hundred times their own length apart.
    assert found[0] == pytest.approx(200, abs=1)
    assert found[1:] == [pytest.approx(found[0] + n * 100 * seconds / 0.01, abs=2 * n) for n in range(1, len(found))]
    assert len(found) == 5


def test_a_store_that_became_fast_is_seen_and_let_through_whole(clock: Clock, cutting: BreakEven) -> None:
    assert probed(cutting, clock, 1.0, 25) == [24]
    assert kept(cutting, [{0: 16 * MIB}] * 4, sources(3.0)) == 4
    assert not cutting.cutting


def test_a_prefix_shorter_than_a_measurement_is_let_through_whole(clock: Clock, cutting: BreakEven) -> None:
    clock.now += 10
    answers = [kept(cutting, [{0: MIB}], sources(0.5)) for _ in range(30)]
    assert [number for number, kept in enumerate(answers) if kept] == [24]


@given(
    st.lists(st.dictionaries(st.integers(0, 3), st.integers(1, 5 * GB), min_size=1), max_size=12),
    st.lists(st.one_of(st.none(), st.floats(0.01, 100)), min_size=4, max_size=4),
    st.integers(0, 10 * GB),
)
def test_what_is_kept_arrives_no_later_than_it_computes_and_nothing_longer_would(
    parts: list[dict[int, int]], rates: list[float | None], outstanding: int
) -> None:
    made = BreakEven(1.0)
    known = sources(*rates, outstanding=outstanding)

    def in_time(count: int, slack: float) -> bool:
        asked = {i: sum(part.get(i, 0) for part in parts[:count]) for i in range(4)}
        arrival = max(
            ((outstanding + size) / rate if size and (rate := known[i].bytes_per_s) else 0.0)
            for i, size in asked.items()
        )
        return arrival <= sum(asked.values()) / GB * (1 + slack)

    passed = kept(made, parts, known)
    assert in_time(passed, 1e-9)
    assert not any(in_time(count, -1e-9) for count in range(passed + 1, len(parts) + 1))


def test_no_store_is_asked_while_all_are_too_slow(clock: Clock, cutting: BreakEven) -> None:
    slow = sources(0.5, 0.6)
    assert [cutting.asks(slow) for _ in range(20)] == [frozenset()] * 20
    assert cutting.report()["unasked"] == 20
    # Where one might be fast enough, or all of them together, or nobody knows a rate, all are asked.
    for known in (sources(0.5, 1.2), sources(0.5, 0.7), sources(0.5, None)):
        assert cutting.asks(known) == {0, 1}
    assert cutting.report()["unasked"] == 20


def test_stores_that_are_fast_together_are_asked_as_soon_as_their_backlog_is_gone(clock: Clock) -> None:
    made, spread = BreakEven(1.0), [{n % 4: GB} for n in range(8)]
    assert kept(made, spread, sources(*[0.8] * 4)) == 8
    assert kept(made, spread, sources(*[0.8] * 4, outstanding=20 * GB)) == 0
    assert made.cutting
    assert made.asks(sources(*[0.8] * 4))
    assert kept(made, spread, sources(*[0.8] * 4)) == 8
    assert not made.cutting


@given(
    st.lists(st.dictionaries(st.integers(0, 3), st.integers(1, 5 * GB), min_size=1), min_size=1, max_size=12),
    st.lists(st.one_of(st.none(), st.floats(0.01, 3)), min_size=4, max_size=4),
    st.booleans(),
)
def test_stores_are_asked_wherever_something_would_pass(
    parts: list[dict[int, int]], rates: list[float | None], cutting: bool
) -> None:
    judge, asked = BreakEven(1.0), BreakEven(1.0)
    judge.cutting = asked.cutting = cutting
    if kept(judge, parts, sources(*rates)):
        assert asked.asks(sources(*rates))


def test_a_store_is_asked_until_it_is_known_to_be_slow(clock: Clock) -> None:
    made = BreakEven(1.0)
    assert made.asks(sources(0.5)), "it has not cut yet"
    assert BreakEven(0).asks(sources(1e-9)) == {0}, "switched off"
    assert made.asks({}) == frozenset()
    assert made.report()["unasked"] == 0, "that none is to be asked is not for break-even to say"


def test_a_store_that_was_late_is_left_alone_for_a_while_and_the_others_are_asked(clock: Clock) -> None:
    made, known = BreakEven(1.0), sources(5.0, 5.0)
    made.late([1])
    assert made.asks(known) == {0}
    made.late([0])
    assert made.asks(known) == frozenset()
    clock.now += 2.1
    assert made.asks(known) == {0, 1}


def test_a_measurement_that_comes_late_is_over(clock: Clock, cutting: BreakEven) -> None:
    slow, asked = sources(0.5), []
    for number in range(100):
        if cutting.asks(slow):
            asked.append(number)
            cutting.late([0])
        clock.now += 1.0
    # The lookup of the moment after it is not counted, for it is not asked either.
    assert asked == [24, 50, 76]


def test_while_one_lookup_measures_a_store_the_others_do_not_ask_it(clock: Clock) -> None:
    made = BreakEven(1.0)
    unknown = sources(None)
    assert made.asks(unknown)
    assert kept(made, [{0: GB}], unknown) == 1
    assert not made.asks(unknown)
    clock.now += 2.1
    assert made.asks(unknown), "LMCache had it in DRAM, and loaded nothing"


def test_one_that_is_not_asked_is_measured_as_often(clock: Clock, cutting: BreakEven) -> None:
    """As tier.lookup does it: only what may be asked reaches `keep`."""
    slow, passed = sources(0.5), []
    for number in range(80):
        if cutting.asks(slow) and kept(cutting, [{0: 16 * MIB}] * 4, slow):
            passed.append(number)
        clock.now += 1.0
    assert passed == [24, 49, 74]


@pytest.mark.parametrize(
    ("gbps", "size", "seconds"), [(4.0, 8 * GB, 2.0), (4.0, GB // 100, 0.05), (4.0, 0, None), (0.0, GB, None)]
)
def test_an_answer_is_worth_no_longer_wait_than_computing(gbps: float, size: int, seconds: float | None) -> None:
    assert BreakEven(gbps).patience_s(size) == seconds
