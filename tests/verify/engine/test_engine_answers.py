"""What an engine answers, judged: each way in which an answer can be wrong is named."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from kvstrata.verify.check import Json, NotCheckedError, UnmetError
from kvstrata.verify.layers.engine import answers
from tests.verify.fakes.engines import completion

ASKED = {"model": "m", "prompt": "a prompt of some letters", "max_tokens": 2, "logprobs": 5, "prompt_logprobs": 5}


def answer() -> dict[str, Any]:
    return completion(ASKED)


def choice(given: dict[str, Any]) -> dict[str, Any]:
    first: dict[str, Any] = given["choices"][0]
    return first


def test_exactly_the_tokens_that_were_asked_for_pass() -> None:
    assert answers.tokens(answer(), 2) == "2 tokens for a prompt of 24"


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda a: a["choices"].clear(), "0 answers came instead of 1"),
        (lambda a: choice(a)["token_ids"].append(1), "3 token ids came"),
        (lambda a: choice(a).update(finish_reason="stop"), "it ended with reason 'stop'"),
        (lambda a: a["usage"].update(completion_tokens=1), "usage counts 1 tokens"),
        (lambda a: a["usage"].update(total_tokens=99), "usage does not add up: 24 + 2 is not 99"),
        (lambda a: a.pop("usage"), "usage does not add up"),
    ],
)
def test_other_tokens_than_asked_for_are_named(change: Callable[[dict[str, Any]], object], seen: str) -> None:
    given = answer()
    change(given)
    with pytest.raises(UnmetError, match=seen.replace("+", r"\+")):
        answers.tokens(given, 2)


def test_sound_log_probabilities_pass_and_those_of_the_prompt_are_left_as_numbers() -> None:
    data: dict[str, Json] = {}
    seen = answers.logprobs(answer(), data)
    assert seen.startswith("23 of the prompt (mean -")
    values = data["prompt_logprobs"]
    assert isinstance(values, list)
    assert len(values) == 23
    assert data["output_logprobs"] == [-0.5, -0.5]


def set_chosen(value: float | None) -> Callable[[dict[str, Any]], None]:
    def change(given: dict[str, Any]) -> None:
        choice(given)["logprobs"]["token_logprobs"] = [value, -0.5]

    return change


def set_top(row: dict[str, float]) -> Callable[[dict[str, Any]], None]:
    def change(given: dict[str, Any]) -> None:
        choice(given)["logprobs"]["top_logprobs"] = [{"token_id:7": -0.5, "token_id:1": -2.0}, row]

    return change


def set_prompt(entry: object) -> Callable[[dict[str, Any]], None]:
    def change(given: dict[str, Any]) -> None:
        choice(given)["prompt_logprobs"][3] = entry

    return change


def flat(given: dict[str, Any]) -> None:
    value = -math.log(128)
    both = {"token_id:7": value, "token_id:1": value}
    choice(given)["logprobs"] = {"token_logprobs": [value, value], "top_logprobs": [both, both]}
    rows = choice(given)["prompt_logprobs"][1:]
    choice(given)["prompt_logprobs"][1:] = [{key: {"logprob": value} for key in row} for row in rows]


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (set_chosen(math.nan), "output token 1: NaN"),
        (set_chosen(math.inf), "output token 1: Inf"),
        (set_chosen(-math.inf), "output token 1: -Inf"),
        (set_chosen(-9999.0), "output token 1: -Inf"),
        (set_chosen(None), "output token 1 has no log probability"),
        (set_chosen(0.5), "output token 1: a log probability of 0.5000, more than certain"),
        (set_chosen(-2.0), "output token 1 has -2.0000, greedy is the best one with -0.5000"),
        (set_top({"token_id:7": -0.5, "token_id:1": math.nan}), "output token 2: NaN"),
        (
            set_top({"token_id:7": -0.5, "token_id:1": -0.5}),
            "the probabilities of 2 tokens add up to 1.2131",
        ),
        (set_top({}), "an output token came without the best ones beside it"),
        (set_prompt({"9": {"logprob": math.nan}}), "is not among its own log probabilities"),
        (set_prompt(None), "prompt token 4 has no log probability"),
        (lambda a: choice(a).pop("logprobs"), "0 log probabilities of the output came"),
        (lambda a: choice(a).pop("prompt_logprobs"), "no log probabilities of the prompt came"),
        (lambda a: choice(a)["prompt_logprobs"].pop(), "23 log probabilities came for a prompt of 24 tokens"),
        (flat, "every token is as probable as any other"),
        (lambda a: a["choices"].clear(), "0 answers came instead of 1"),
    ],
)
def test_what_no_sound_model_gives_is_named(change: Callable[[dict[str, Any]], object], seen: str) -> None:
    given = answer()
    change(given)
    with pytest.raises(UnmetError, match=seen):
        answers.logprobs(given, {})


@pytest.mark.parametrize(("value", "seen"), [(math.nan, "NaN"), (None, "NaN"), (math.inf, "Inf"), (0.01, "more than")])
def test_a_wrong_log_probability_in_the_prompt_is_named_with_its_place(value: float | None, seen: str) -> None:
    given = answer()
    token = str(choice(given)["prompt_token_ids"][3])
    choice(given)["prompt_logprobs"][3] = {token: {"logprob": value}}
    with pytest.raises(UnmetError, match=f"prompt token 4: .*{seen}"):
        answers.logprobs(given, {})


def test_log_probabilities_a_hair_above_zero_are_rounding() -> None:
    given = answer()
    choice(given)["logprobs"] = {
        "token_logprobs": [0.0004, -0.5],
        "top_logprobs": [{"a": 0.0004}, {"a": -0.5, "b": -2}],
    }
    answers.logprobs(given, {})


def test_an_engine_that_refuses_because_of_nan_is_told_as_nan() -> None:
    said = (
        'POST :8000/v1/completions answered 500: {"message": "Out of range float values are not JSON compliant: nan"}'
    )
    assert str(answers.refused(said)).startswith("NaN or Inf among the log probabilities")
    assert str(answers.refused("answered 503")) == "answered 503"


def test_an_engine_that_has_no_log_probabilities_of_prompts_leaves_them_unproven() -> None:
    found = answers.refused('POST :8000/v1 answered 400: {"message": "prompt_logprobs is not supported"}')
    assert isinstance(found, NotCheckedError)
    assert "is not proven" in str(found)
    assert isinstance(answers.refused("POST :8000/v1 answered 500: empty"), UnmetError)
