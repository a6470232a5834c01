"""The stream of requests: repeats its prompts, sends again what failed, and holds still when told to."""

from __future__ import annotations

import threading
from collections import Counter

from kvstrata.verify.check import UnmetError
from kvstrata.verify.faults import requests
from kvstrata.verify.faults.requests import OUTPUT_TOKENS, Attempt, Sample, Stream, prompt_of, text_of

ENDS_S = 20.0


def test_every_prompt_but_the_last_ones_comes_twice() -> None:
    counts = Counter(prompt_of(request) for request in range(1000))
    assert all(counts[prompt] == 2 for prompt in range(1, 490))
    assert prompt_of(0) == 0


def test_a_prompt_is_the_same_for_the_same_seed_and_differs_from_its_first_word_otherwise() -> None:
    assert text_of("a", 1, 50) == text_of("a", 1, 50)
    firsts = {text_of(seed, number, 5).split()[0] for seed in "ab" for number in range(5)}
    assert len(firsts) == 10
    assert len(text_of("a", 1, 50).split()) == 51


def test_nothing_is_sent_before_it_is_told_to_and_while_it_pauses() -> None:
    sent: list[int] = []

    def send(prompt: int) -> int:
        sent.append(prompt)
        return OUTPUT_TOKENS

    with Stream(send, pace_s=0) as stream:
        assert not stream.hold(0, 1, 0.05)
        assert sent == []
        stream.resume()
        assert stream.hold(0, 5, ENDS_S)
        assert stream.pause(ENDS_S)
        still = len(sent)
        assert len(stream.samples()) == still
        assert not stream.hold(0, 1, 0.05)
        assert len(sent) == still
        stream.resume()
        assert stream.hold(0, 5, ENDS_S)


def test_a_pause_waits_for_what_is_under_way() -> None:
    inside, go = threading.Event(), threading.Event()

    def send(prompt: int) -> int:
        inside.set()
        go.wait(ENDS_S)
        return OUTPUT_TOKENS

    with Stream(send, clients=1, pace_s=0) as stream:
        stream.resume()
        assert inside.wait(ENDS_S)
        assert not stream.pause(0.05)
        go.set()
        assert stream.pause(ENDS_S)
        assert len(stream.samples()) == 1


def test_what_fails_once_is_sent_again_and_told() -> None:
    failed: set[int] = set()

    def send(prompt: int) -> int:
        if prompt in failed:
            return OUTPUT_TOKENS
        failed.add(prompt)
        raise UnmetError("connection reset")

    with Stream(send, clients=1, pace_s=0) as stream:
        stream.resume()
        assert stream.hold(0, 1, ENDS_S)
    sample = stream.samples()[0]
    assert [attempt.error for attempt in sample.attempts] == ["connection reset", None]
    assert sample.answered
    assert sample.seconds >= requests.RESEND_S


def test_an_answer_of_too_few_tokens_is_none() -> None:
    with Stream(lambda prompt: 3, clients=1, pace_s=0) as stream:
        stream.resume()
        assert stream.hold(0, 1, ENDS_S)
    sample = stream.samples()[0]
    assert not sample.answered
    assert len(sample.attempts) == requests.ATTEMPTS
    assert sample.attempts[0].error == f"3 tokens came, asked for were {OUTPUT_TOKENS}"


def test_a_hold_lasts_as_long_as_it_should() -> None:
    with Stream(lambda prompt: OUTPUT_TOKENS, pace_s=0.01) as stream:
        stream.resume()
        began = stream.now_s
        assert stream.hold(0.3, 1, ENDS_S)
        assert stream.now_s - began >= 0.3


def test_every_sending_is_a_flat_row() -> None:
    sample = Sample(4, 2, (Attempt(1.0, 0.5, "reset"), Attempt(2.0, 0.25, None)))
    common = {"fault": "faults.store", "request": 4, "prompt": 2}
    assert sample.rows("faults.store") == [
        {**common, "sending": 1, "started_s": 1.0, "seconds": 0.5, "error": "reset", "carried": True},
        {**common, "sending": 2, "started_s": 2.0, "seconds": 0.25, "error": None, "carried": True},
    ]
