"""A prompt that is asked while nothing else runs: how long its whole answer takes, and the MFU that this tells."""

from __future__ import annotations

from collections.abc import Sequence

from kvstrata.bench.serving.correctness import Answer
from kvstrata.plan.engine import Engine
from kvstrata.plan.figures import Figure
from kvstrata.plan.measured import fitted_mfu
from kvstrata.plan.tiers import Tier


def _decode_s(engine: Engine, answer: Answer) -> float:
    """Return the seconds of an answer's tokens after the first."""
    return (len(answer.ids) - 1) * engine.step_s(1, 0.0, answer.prompt_tokens)


def answer_s(engine: Engine, tiers: Sequence[Tier], answer: Answer, chunk_tokens: int) -> float:
    """Return the seconds of a prompt and its answer while nothing else runs, as much cached as it says."""
    cached = answer.cached_tokens or 0
    seconds = engine.prefill_s(answer.prompt_tokens, cached) + _decode_s(engine, answer)
    if cached and tiers:
        tier = tiers[-1]
        seconds += tier.lookup_s(cached // chunk_tokens) + tier.load_s(cached * engine.kv.stored_bytes_per_token, 1)
    return seconds


def mfu_of(engine: Engine, answer: Answer) -> Figure:
    """Return the MFU of a prompt that was computed alone; BadInputError where no MFU makes it so quick."""
    first = (answer.seconds or 0.0) - _decode_s(engine, answer)
    return fitted_mfu(engine, answer.prompt_tokens, first, "prompts computed alone, in the benchmark's file")
