from __future__ import annotations

from kvstrata.l2.ledger import Ledger
from kvstrata.l2.names import IndexName
from kvstrata.l2.wire import ReplyError, command

A5, A9, B5 = IndexName("a", 5), IndexName("a", 9), IndexName("b", 5)


def test_it_knows_nothing_before_the_store_was_asked() -> None:
    ledger = Ledger(100)
    assert ledger.used_bytes is None
    assert ledger.fill == 0
    assert ledger.indexes == ()
    assert ledger.count((), []) == 0
    assert ledger.used_bytes == 0


def test_use_is_entries_times_bytes_over_all_indexes_and_namespaces() -> None:
    ledger = Ledger(100)
    ledger.learn([B5, A9, A5, A5])
    indexes, questions = ledger.questions()
    assert indexes == (A5, A9, B5)
    assert questions == [command(b"ZCARD", b"kvsx:a:5"), command(b"ZCARD", b"kvsx:a:9"), command(b"ZCARD", b"kvsx:b:5")]
    assert ledger.count(indexes, [2, 3, 4]) == 10 + 27 + 20
    assert ledger.used_bytes == 57
    assert ledger.fill == 0.57
    assert ledger.by_namespace == {"a": 37, "b": 20}
    assert ledger.chunks == 9


def test_what_the_store_did_not_answer_counts_nothing() -> None:
    ledger = Ledger(100)
    ledger.learn([A5, A9, B5])
    assert ledger.count(ledger.indexes, [ReplyError("WRONGTYPE"), None, 2]) == 10
    assert ledger.by_namespace == {"b": 10}


def test_an_index_that_is_about_to_be_made_is_asked_for_too_until_the_next_look() -> None:
    ledger = Ledger(100)
    ledger.learn([A5])
    ledger.expect(B5)
    ledger.expect(B5)
    assert ledger.indexes == (A5, B5)
    ledger.learn([A5])
    assert list(ledger.indexes) == [A5]


def test_no_capacity_is_never_filled() -> None:
    ledger = Ledger(0)
    ledger.count([A5], [10])
    assert ledger.fill == 0
