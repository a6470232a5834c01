"""What is right, what is wrong and what is not proven by a sample of outputs."""

from __future__ import annotations

from dataclasses import replace

from kvstrata.bench.serving.correctness import Answer, Question, judge, questions
from kvstrata.bench.serving.model import Conversation, Turn, Workload

COMPUTED = Answer("none", "c1", 1000, 0, (1, 2, 3, 4), (-0.1, -0.2, -0.3, -0.4))
LOADED = replace(COMPUTED, configuration="ssd", cached_tokens=768)


def test_equal_answers_from_a_cache_are_right() -> None:
    verdict = judge("ssd", [LOADED], [[COMPUTED], [COMPUTED]], "float32")
    assert verdict.ok is True
    assert (verdict.questions, verdict.cached_tokens, verdict.distance) == (1, 768, 0.0)


def test_another_token_in_fp32_is_wrong_and_named_with_its_place() -> None:
    verdict = judge("ssd", [replace(LOADED, ids=(1, 2, 9, 4))], [[COMPUTED], [COMPUTED]], "float32")
    assert verdict.ok is False
    assert verdict.diverged == (("c1", 2),)
    assert "first difference at token 2" in verdict.text()


def test_another_token_in_bf16_is_reported_and_not_judged() -> None:
    other = replace(LOADED, ids=(1, 2, 9, 4), logprobs=(-0.1, -0.25, -5.0, -0.4))
    verdict = judge("ssd", [other], [[COMPUTED], [COMPUTED]], "bfloat16")
    assert verdict.ok is None
    # What comes after the first difference answers another prompt.
    assert abs(verdict.distance - 0.05) < 1e-9


def test_answers_that_no_cache_had_a_part_in_prove_nothing() -> None:
    verdict = judge("ssd", [replace(LOADED, cached_tokens=0)], [[COMPUTED], [COMPUTED]], "float32")
    assert verdict.ok is None
    assert "NOT CHECKED: none of the sample's tokens came from a cache" in verdict.notes


def test_without_a_common_question_nothing_is_proven() -> None:
    verdict = judge("ssd", [replace(LOADED, question="other")], [[COMPUTED], [COMPUTED]], "float32")
    assert verdict.ok is None
    assert "NOT CHECKED" in verdict.notes[0]


def test_a_reference_that_was_cached_itself_is_told() -> None:
    cached = replace(COMPUTED, cached_tokens=128)
    verdict = judge("ssd", [LOADED], [[cached], [cached]], "float32")
    assert "128 tokens of the reference came from a cache" in verdict.text()


def test_what_the_reference_does_by_itself_is_measured() -> None:
    again = replace(COMPUTED, ids=(1, 2, 3, 5))
    verdict = judge("ssd", [LOADED], [[COMPUTED], [again]], "bfloat16")
    assert verdict.noise_diverged == 1


def test_a_shorter_answer_is_another_one() -> None:
    short = replace(LOADED, ids=(1, 2), logprobs=(-0.1, -0.2))
    assert judge("ssd", [short], [[COMPUTED], [COMPUTED]], "float32").diverged == (("c1", 2),)


def workload(*prompts: tuple[int, ...]) -> Workload:
    made = (Conversation(f"c{n}", (Turn(p, len(p), 1), Turn((9,), 1, 1))) for n, p in enumerate(prompts))
    return Workload("w", tuple(made), 1, 1)


def test_the_sample_is_spread_and_begins_with_what_came_last() -> None:
    found = questions(workload(*((n,) for n in range(10))), 5)
    assert [question.name for question in found] == ["c9", "c7", "c5", "c3", "c1"]
    assert found[0] == Question("c9", (9,))


def test_each_prompt_is_asked_once_and_no_more_than_there_are() -> None:
    assert len(questions(workload((1,), (1,), (2,)), 8)) == 2
    assert questions(workload((1,)), 0) == ()
