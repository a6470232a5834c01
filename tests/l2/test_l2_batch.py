from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstrata.l2.batch import Batch


def test_a_batch_without_open_parts_is_answered_when_it_is_started() -> None:
    answers: list[list[int]] = []
    with Batch([1, 2], answers.append):
        assert answers == []
    assert answers == [[1, 2]]


def test_parts_settled_while_others_are_being_started_do_not_end_the_batch() -> None:
    answers: list[list[int]] = []
    with Batch([0, 0, 7], answers.append) as batch:
        batch.expect(0)
        batch.settle(0, 10)
        assert answers == []
        batch.expect(1)
        batch.settler(1)(11)
        assert answers == []
    assert answers == [[10, 11, 7]]


@given(st.permutations(range(6)), st.integers(0, 6), st.sets(st.integers(0, 5)))
def test_the_answer_comes_once_with_the_last_part_in_any_order(order: list[int], early: int, twice: set[int]) -> None:
    answers: list[list[int]] = []
    with Batch([-1] * 6, answers.append) as batch:
        for number in range(6):
            batch.expect(number)
        for number in order[:early]:
            batch.settle(number, number)
    for number in order[early:]:
        assert answers == []
        batch.settle(number, number)
    for number in twice:
        batch.settle(number, 99)
    assert answers == [list(range(6))]


def test_a_part_that_nobody_waits_for_changes_nothing_later() -> None:
    answers: list[list[int]] = []
    with Batch([0, 0], answers.append) as batch:
        batch.expect(0)
    batch.settle(1, 99)
    assert answers == []
    batch.settle(0, 1)
    assert answers == [[1, 0]]


def test_a_second_settling_does_not_change_the_first() -> None:
    answers: list[list[int]] = []
    with Batch([0, 0], answers.append) as batch:
        batch.expect(0)
        batch.expect(1)
    batch.settle(0, 1)
    batch.settle(0, 99)
    assert answers == []
    batch.settle(1, 2)
    assert answers == [[1, 2]]


def test_an_error_while_starting_is_the_callers_and_no_answer() -> None:
    answers: list[Any] = []
    with pytest.raises(ZeroDivisionError), Batch([0], answers.append):
        raise ZeroDivisionError
    assert answers == []


def test_many_threads_settling_at_once_give_one_answer() -> None:
    for _ in range(100):
        answers: list[list[int]] = []
        gate = threading.Barrier(5)

        def settle(batch: Batch[int], numbers: range, gate: threading.Barrier = gate) -> None:
            gate.wait()
            for number in numbers:
                batch.settle(number, number)

        with Batch([-1] * 40, answers.append) as batch:
            for number in range(40):
                batch.expect(number)
            threads = [threading.Thread(target=settle, args=(batch, range(n, 40, 4))) for n in range(4)]
            for thread in threads:
                thread.start()
            gate.wait()
        for thread in threads:
            thread.join()
        assert answers == [list(range(40))]


def test_a_batch_in_a_hurry_is_answered_with_what_there_is_and_never_again() -> None:
    answers: list[list[int]] = []
    with Batch([-1] * 3, answers.append) as batch:
        for number in range(3):
            batch.expect(number)
    batch.settle(1, 11)
    late: list[tuple[frozenset[int], int]] = []
    batch.hurry(lambda numbers: late.append((numbers, len(answers))))
    assert answers == [[-1, 11, -1]]
    assert late == [(frozenset({0, 2}), 0)], "before it calls back"
    batch.settle(0, 10)
    batch.settle(2, 12)
    batch.hurry(lambda numbers: late.append((numbers, 0)))
    assert answers == [[-1, 11, -1]]
    assert len(late) == 1


def test_a_batch_that_is_answered_has_no_hurry() -> None:
    answers: list[list[int]] = []
    late: list[frozenset[int]] = []
    with Batch([0], answers.append) as batch:
        batch.expect(0)
        # Its parts are still being started.
        batch.hurry(late.append)
        batch.settle(0, 1)
    batch.hurry(late.append)
    assert (answers, late) == ([[1]], [])
