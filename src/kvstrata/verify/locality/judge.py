"""Whether follow-up turns went where they are warm. Pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from kvstrata.verify.check import Json, UnableError, UnmetError

WARM_SHARE = 0.9
# Fewer would let chance pass: at two replicas one in 64 routers without affinity sends six turns right.
LEAST = 6


@dataclass(frozen=True)
class Turn:
    """One request. `expected` is the replica that served the turn before, None where that is not known.

    Tokens are those of the prompt, `first_token_s` is seconds until the answer's only token.
    """

    conversation: str
    number: int
    replica: str
    expected: str | None
    prompt_tokens: int
    local_tokens: int
    external_tokens: int
    first_token_s: float

    @property
    def warm(self) -> bool:
        """Whether it came to the replica that has the conversation."""
        return self.replica == self.expected

    def as_row(self) -> dict[str, Json]:
        """A row of the report's table."""
        return {
            "conversation": self.conversation,
            "turn": self.number,
            "replica": self.replica,
            "expected": self.expected,
            "prompt_tokens": self.prompt_tokens,
            "local_tokens": self.local_tokens,
            "external_tokens": self.external_tokens,
            "first_token_s": round(self.first_token_s, 4),
        }


def enough(turns: Sequence[Turn]) -> bool:
    """Whether so many follow-up turns were seen that there can be a verdict."""
    return sum(turn.expected is not None for turn in turns) >= LEAST


def locality(turns: Sequence[Turn], replicas: int, mixed: int, data: dict[str, Json]) -> str:
    """At least 90 % of the follow-up turns came to the replica that has the conversation.

    `mixed` turns could not be told from other traffic. Raises UnmetError, or UnableError when too few could.
    """
    later = [turn for turn in turns if turn.expected is not None]
    warm = [turn for turn in later if turn.warm]
    cold = [turn for turn in turns if turn.number == 1]
    if not enough(turns):
        why = f"; {mixed} could not be told from other traffic" if mixed else ""
        raise UnableError(f"only {len(later)} follow-up turns were seen, {LEAST} are needed{why}")
    used = {turn.replica for turn in turns}
    data |= {
        "follow_up_turns": len(later),
        "warm_turns": len(warm),
        "mixed_turns": mixed,
        "replicas_used": len(used),
        "warm_local_share": _share(sum(turn.local_tokens for turn in warm), warm),
        "warm_external_share": _share(sum(turn.external_tokens for turn in warm), warm),
        "warm_first_token_s": _median(warm),
        "cold_first_token_s": _median(cold),
    }
    seen = (
        f"{len(warm)} of {len(later)} follow-up turns came to the replica that has the conversation"
        f"{_tokens(warm)}{_times(warm, cold)}; {len(used)} of {replicas} replicas took part"
    )
    if len(warm) < WARM_SHARE * len(later):
        raise UnmetError(seen)
    return seen


def _tokens(warm: Sequence[Turn]) -> str:
    if not warm:
        return ""
    local = _share(sum(turn.local_tokens for turn in warm), warm)
    external = _share(sum(turn.external_tokens for turn in warm), warm)
    return f": {local:.0%} of their tokens from its own cache, {external:.0%} from LMCache"


def _times(warm: Sequence[Turn], cold: Sequence[Turn]) -> str:
    first, again = _median(cold), _median(warm)
    return f"; first token {again:.2f} s warm, {first:.2f} s cold (medians)" if first and again else ""


def _share(tokens: int, turns: Sequence[Turn]) -> float:
    whole = sum(turn.prompt_tokens for turn in turns)
    return round(tokens / whole, 4) if whole else 0.0


def _median(turns: Sequence[Turn]) -> float | None:
    return round(statistics.median(turn.first_token_s for turn in turns), 4) if turns else None
