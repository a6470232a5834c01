"""Who answered, told by KV events alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvstrata.contract.attribution import attributed, disagreements
from kvstrata.contract.client import Answer, Request
from kvstrata.contract.residency import Batch

SIZE = 4
FIRST, SECOND = "abcdefgh", "abcdefghijkl"


def tokens(texts: Sequence[str]) -> list[list[int]]:
    return [[ord(letter) for letter in text] for text in texts]


def answer(prompt: str, turn: int, sent: float, last_sent: float | None = None, worker: str | None = None) -> Answer:
    last = sent if last_sent is None else last_sent
    return Answer(Request("c", turn, prompt, 1, stream=False), sent, last, last + 1, last + 1, worker)


def stored(at: float, worker: str, text: str, parent: str | None = None) -> Batch:
    begin = 0 if parent is None else len(parent)
    event: dict[str, Any] = {
        "type": "BlockStored",
        "block_hashes": [text[: end + SIZE] for end in range(begin, len(text), SIZE)],
        "parent_block_hash": parent,
        "token_ids": [ord(letter) for letter in text[begin:]],
        "block_size": SIZE,
        "medium": "GPU",
    }
    return Batch(at, worker, [event])


def workers(answers: Sequence[Answer], *batches: Batch) -> list[str | None]:
    return [one.worker for one in attributed(answers, batches, tokens, SIZE)]


def test_the_engine_that_stored_the_last_whole_block_answered() -> None:
    told = [stored(10.2, "a", FIRST), stored(20.2, "a", SECOND, FIRST)]
    assert workers([answer(FIRST, 0, 10), answer(SECOND + "xy", 1, 20)], *told) == ["a", "a"]


def test_a_turn_that_goes_elsewhere_at_once_stores_the_turn_before_again_and_does_not_take_it() -> None:
    told = [stored(10.2, "a", FIRST), stored(11.4, "b", SECOND)]
    assert workers([answer(FIRST, 0, 10), answer(SECOND, 1, 11.2)], *told) == ["a", "b"]


def test_of_two_attempts_the_answered_one_counts() -> None:
    told = [stored(10.2, "a", FIRST), stored(15.3, "b", FIRST)]
    assert workers([answer(FIRST, 0, 10, last_sent=15)], *told) == ["b"]


def test_an_attempt_that_found_the_block_of_the_one_before_is_where_that_was() -> None:
    assert workers([answer(FIRST, 0, 10, last_sent=15)], stored(10.2, "a", FIRST)) == ["a"]


def test_nobody_is_guessed() -> None:
    told = stored(10.2, "a", FIRST)
    assert workers([answer("abc", 0, 10)], told) == [None]
    assert workers([answer("abcdxxxx", 0, 10)], told) == [None]
    assert workers([answer(FIRST, 0, 14)], told) == [None]
    assert workers([answer(FIRST, 0, 5)], told) == [None]


def test_what_a_router_says_and_what_events_say_is_compared() -> None:
    told = [answer(FIRST, 0, 10, worker="a"), answer(FIRST, 1, 20, worker="b"), answer(FIRST, 2, 30)]
    found = [answer(FIRST, 0, 10, worker="a"), answer(FIRST, 1, 20, worker="a"), answer(FIRST, 2, 30, worker="a")]
    assert disagreements(told, found) == (2, 1)
