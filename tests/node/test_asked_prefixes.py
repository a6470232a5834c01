"""What LMCache was asked about is known for as long as is said, and no longer."""

from kvstrata.node.asked_prefixes import AskedPrefixes


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_was_asked_is_fresh_for_the_seconds_that_were_given() -> None:
    clock = Clock()
    known = AskedPrefixes(30.0, clock=clock)
    known.keep(b"p", known.now())
    assert known.asked_at(b"p") == 100.0
    assert known.asked_at(b"q") is None
    clock.now += 29.9
    assert known.is_fresh(100.0)
    clock.now += 0.1
    assert not known.is_fresh(100.0)


def test_what_continues_a_prefix_is_as_old_as_what_it_continues() -> None:
    clock = Clock()
    known = AskedPrefixes(30.0, clock=clock)
    known.keep(b"p", known.now())
    clock.now += 20
    moment = known.asked_at(b"p")
    assert moment is not None
    known.keep(b"p and more", moment)
    clock.now += 15
    later = known.asked_at(b"p and more")
    assert later is not None
    assert not known.is_fresh(later)


def test_nothing_is_kept_for_no_seconds() -> None:
    known = AskedPrefixes(0.0)
    known.keep(b"p", known.now())
    assert known.asked_at(b"p") is None


def test_only_the_last_ones_are_kept() -> None:
    known = AskedPrefixes(30.0, most=2)
    for prefix in (b"1", b"2", b"1", b"3"):
        known.keep(prefix, known.now())
    assert [known.asked_at(prefix) is not None for prefix in (b"1", b"2", b"3")] == [True, False, True]


def test_everything_can_be_forgotten() -> None:
    known = AskedPrefixes(30.0)
    known.keep(b"p", known.now())
    known.forget()
    assert known.asked_at(b"p") is None
