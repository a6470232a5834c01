from __future__ import annotations

from types import SimpleNamespace

import pytest

from kvstrata.l2 import rate
from kvstrata.l2.rate import RateMeter

MIB = 1 << 20


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(rate, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_nothing_is_measured_before_something_came(clock: Clock) -> None:
    meter = RateMeter()
    assert meter.bytes_per_s is None
    meter.begin(MIB)
    clock.now += 5
    meter.end(MIB, 0)
    assert meter.bytes_per_s is None
    assert meter.outstanding == 0


def test_a_burst_is_measured_at_its_end(clock: Clock) -> None:
    meter = RateMeter()
    for _ in range(4):
        meter.begin(MIB)
    assert meter.outstanding == 4 * MIB
    for _ in range(4):
        clock.now += 0.01
        meter.end(MIB, MIB)
    assert meter.bytes_per_s == pytest.approx(4 * MIB / 0.04)
    assert meter.outstanding == 0


def test_idle_time_between_requests_is_no_slowness(clock: Clock) -> None:
    meter = RateMeter()
    for _ in range(10):
        meter.begin(MIB)
        clock.now += 0.001
        meter.end(MIB, MIB)
        clock.now += 60
    assert meter.bytes_per_s == pytest.approx(MIB / 0.001)


def test_a_long_stream_is_measured_window_by_window_and_smoothed(clock: Clock) -> None:
    meter = RateMeter()
    meter.begin(100 * MIB)  # keeps it busy
    rates = []
    for speed in (100, 100, 50):
        meter.begin(speed * MIB)
        clock.now += 1
        meter.end(speed * MIB, speed * MIB)
        rates.append(meter.bytes_per_s)
    assert rates == [pytest.approx(100 * MIB), pytest.approx(100 * MIB), pytest.approx(85 * MIB)]


def test_within_a_window_nothing_is_concluded(clock: Clock) -> None:
    meter = RateMeter()
    meter.begin(MIB)
    meter.begin(MIB)
    clock.now += 0.2
    meter.end(MIB, MIB)
    assert meter.bytes_per_s is None
    clock.now += 0.2
    meter.end(MIB, MIB)
    assert meter.bytes_per_s == pytest.approx(2 * MIB / 0.4)


def test_what_failed_to_come_lowers_the_rate(clock: Clock) -> None:
    meter = RateMeter()
    meter.begin(4 * MIB)
    meter.begin(MIB)
    clock.now += 1
    meter.end(4 * MIB, 0)
    meter.end(MIB, MIB)
    assert meter.bytes_per_s == pytest.approx(MIB)
    assert meter.outstanding == 0


def test_too_little_to_measure_is_not_measured(clock: Clock) -> None:
    meter = RateMeter()
    meter.begin(1000)
    clock.now += 1e-5
    meter.end(1000, 1000)
    assert meter.bytes_per_s is None
