"""What a completion of an engine must look like. Pure functions over its JSON: seen, or UnmetError."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kvstrata.verify.check import Json, NotCheckedError, UnmetError

# Log probabilities are rounded sums: they may lie this far above 0, and a greedy token this far below the best.
TOLERANCE = 1e-3
# How vLLM prints a log probability of minus infinity.
MINUS_INFINITY = -9999.0
# What Python's JSON encoder says of NaN and Inf: vLLM answers 500 with it.
_NOT_JSON = ("Out of range float", "not JSON compliant")


def tokens(answer: Mapping[str, Any], asked: int) -> str:
    """Exactly `asked` tokens, ended by their number, and a usage that adds up."""
    choices = answer.get("choices") or []
    if len(choices) != 1:
        raise UnmetError(f"{len(choices)} answers came instead of 1")
    usage = answer.get("usage") or {}
    prompt, completion, total = (usage.get(f"{part}_tokens") for part in ("prompt", "completion", "total"))
    reason, ids = choices[0].get("finish_reason"), choices[0].get("token_ids")
    problems = []
    if completion != asked:
        problems.append(f"usage counts {completion} tokens")
    if ids is not None and len(ids) != asked:
        problems.append(f"{len(ids)} token ids came")
    if reason != "length":
        problems.append(f"it ended with reason {reason!r}")
    if not prompt or total != prompt + (completion or 0):
        problems.append(f"usage does not add up: {prompt} + {completion} is not {total}")
    if problems:
        raise UnmetError(f"asked for {asked} tokens: {'; '.join(problems)}")
    return f"{asked} tokens for a prompt of {prompt}"


def logprobs(answer: Mapping[str, Any], data: dict[str, Json]) -> str:
    """Log probabilities of prompt and output that a sound model can give.

    Leaves in `data` those of the prompt's tokens, the first left out: `prompt_logprobs`, natural logarithms.
    """
    choices = answer.get("choices") or []
    if len(choices) != 1:
        raise UnmetError(f"{len(choices)} answers came instead of 1")
    prompt = _prompt(choices[0])
    chosen, tops = _output(choices[0])
    for name, rows in (("prompt", [row for _, row in prompt]), ("output", tops)):
        for place, row in enumerate(rows):
            _distribution(f"{name} token {place + 1 + (name == 'prompt')}", row)
    for place, (value, row) in enumerate(zip(chosen, tops, strict=True)):
        _number(f"output token {place + 1}", value)
        best = max(row)
        if value < best - TOLERANCE:
            raise UnmetError(f"output token {place + 1} has {value:.4f}, greedy is the best one with {best:.4f}")
    rows = [row for _, row in prompt] + tops
    if all(max(row) - min(row) == 0 for row in rows if len(row) > 1):
        raise UnmetError(f"every token is as probable as any other ({chosen[0]:.4f}): the weights tell nothing")
    data["prompt_logprobs"] = [round(value, 6) for value, _ in prompt]
    data["output_logprobs"] = [round(value, 6) for value in chosen]
    mean = sum(value for value, _ in prompt) / len(prompt)
    return f"{len(prompt)} of the prompt (mean {mean:.3f}) and {len(chosen)} of the output, finite and in order"


def refused(message: str) -> UnmetError | NotCheckedError:
    """What a refused request for log probabilities means."""
    if any(part in message for part in _NOT_JSON):
        return UnmetError(f"NaN or Inf among the log probabilities, which JSON cannot carry: {message}")
    if " answered 400: " in message:
        # Some ways to run an engine have no log probabilities of the prompt, and say so.
        return NotCheckedError(f"that log probabilities are sound is not proven: the engine gives none: {message}")
    return UnmetError(message)


def _prompt(choice: Mapping[str, Any]) -> list[tuple[float, list[float]]]:
    """For each token of the prompt but the first its log probability, and those of the most probable ones with it."""
    given = choice.get("prompt_logprobs")
    ids = choice.get("prompt_token_ids")
    if not given or len(given) < 2:
        raise UnmetError("no log probabilities of the prompt came")
    if ids is not None and len(ids) != len(given):
        raise UnmetError(f"{len(given)} log probabilities came for a prompt of {len(ids)} tokens")
    rows = []
    for place, entry in enumerate(given[1:], start=1):
        if not entry:
            raise UnmetError(f"prompt token {place + 1} has no log probability")
        # The engine puts the prompt's own token first; where ids came, by its id.
        own = entry.get(str(ids[place])) if ids is not None else next(iter(entry.values()))
        if own is None:
            raise UnmetError(f"prompt token {place + 1} is not among its own log probabilities")
        rows.append((_value(own), [_value(item) for item in entry.values()]))
    return rows


def _value(item: Mapping[str, Any]) -> float:
    value = item.get("logprob")
    return math.nan if value is None else float(value)


def _output(choice: Mapping[str, Any]) -> tuple[list[float], list[list[float]]]:
    given = choice.get("logprobs") or {}
    chosen, tops = given.get("token_logprobs") or [], given.get("top_logprobs") or []
    if not chosen or len(tops) != len(chosen):
        raise UnmetError(f"{len(chosen)} log probabilities of the output came, {len(tops)} lists of the best")
    if any(not row for row in tops):
        raise UnmetError("an output token came without the best ones beside it")
    absent = [place + 1 for place, value in enumerate(chosen) if value is None]
    if absent:
        raise UnmetError(f"output token {absent[0]} has no log probability")
    values = [[math.nan if value is None else float(value) for value in row.values()] for row in tops]
    return [float(value) for value in chosen], values


def _distribution(where: str, row: Sequence[float]) -> None:
    for value in row:
        _number(where, value)
    total = sum(math.exp(value) for value in row)
    if total > 1 + TOLERANCE:
        raise UnmetError(f"{where}: the probabilities of {len(row)} tokens add up to {total:.4f}")


def _number(where: str, value: float) -> None:
    if math.isnan(value):
        raise UnmetError(f"{where}: NaN")
    if math.isinf(value) or value <= MINUS_INFINITY:
        raise UnmetError(f"{where}: {'Inf' if value > 0 else '-Inf'}")
    if value > TOLERANCE:
        raise UnmetError(f"{where}: a log probability of {value:.4f}, more than certain")
