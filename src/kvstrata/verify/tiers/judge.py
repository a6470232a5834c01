"""What the counters must say at each step of the proof. Pure functions: seen, or UnmetError."""

from __future__ import annotations

from collections.abc import Mapping

from kvstrata.verify.check import UnableError, UnmetError
from kvstrata.verify.tiers.counters import Counters
from kvstrata.verify.tiers.stream import Streamed

# Of the prompt's whole chunks: an engine may recompute the last one for its own reasons.
HIT_SHARE = 0.9
# fp32 is the same from cache and computed, save for the order of sums. Most starts of one engine answer the same to the
# last digit, but rare ones on a CPU were 2e-3 and 4e-3 apart (kvstrata.verify.weights.judge), and the proof restarts
# one. Wrong KV is whole numbers apart.
LOGPROB_TOLERANCE = 0.02
REMARKABLE = 1e-3


def whole_chunks(tokens: int, chunk_size: int) -> int:
    """How many chunks of a prompt can come from a cache: the last token is always computed."""
    return (tokens - 1) // chunk_size


def alone(delta: Counters, tokens: int) -> None:
    """Raise UnableError when other requests were counted too: nothing can be told from such numbers."""
    if delta.requests < 1:
        raise UnableError("the engine's metrics never counted the request")
    if delta.requests > 1 or delta.l1_hits + delta.l2_hits > tokens:
        raise UnableError(
            f"{delta.requests:.0f} requests were served while one was measured: "
            "repeat without other traffic on the node"
        )


def cold(delta: Counters, tokens: int) -> str:
    """A prompt that was never seen: asked of the cache, found in none."""
    alone(delta, tokens)
    seen = (
        f"{delta.external_hits:.0f} tokens from the external cache, {delta.local_hits:.0f} from the "
        f"engine's own, {delta.computed:.0f} of {tokens} computed"
    )
    if delta.external_queries <= 0:
        raise UnmetError(f"{seen}; the engine never asked LMCache: its connector is not in use")
    if delta.external_hits > 0 or delta.transferred > 0 or delta.local_hits > 0:
        raise UnmetError(seen)
    return seen


def from_store(delta: Counters, tokens: int, chunk_size: int) -> str:
    """A prompt that only the stores know: at least 90% of its whole chunks came from L2."""
    alone(delta, tokens)
    chunks = whole_chunks(tokens, chunk_size)
    needed = HIT_SHARE * chunks * chunk_size
    seen = (
        f"{delta.external_hits:.0f} of {tokens} tokens from the external cache: "
        f"{delta.l2_hits:.0f} from L2 ({delta.l2_loaded_chunks:.0f} chunks loaded), "
        f"{delta.l1_hits:.0f} from L1; {delta.local_hits:.0f} from the engine's own"
    )
    problems = []
    if delta.external_hits < needed or delta.transferred < needed:
        problems.append(f"fewer than {needed:.0f} tokens were hits")
    if delta.l2_hits < needed:
        problems.append(f"fewer than {needed:.0f} of them from L2")
    if delta.l2_loaded_chunks < HIT_SHARE * chunks:
        problems.append(f"LMCache loaded fewer than {HIT_SHARE * chunks:.0f} chunks from L2")
    if delta.l1_hits > 0:
        problems.append("L1 held some of it: not empty as it should be")
    if delta.local_hits > 0:
        problems.append("the engine's own cache held some of it")
    if problems:
        raise UnmetError(f"{seen}: {'; '.join(problems)}")
    return seen


def identical(answers: Mapping[str, Streamed], dtype: str) -> str:
    """The same greedy tokens from every step; in fp32 their log probabilities too."""
    (reference_name, reference), *others = answers.items()
    spread, farthest = 0.0, ""
    for name, answer in others:
        for place, (want, got) in enumerate(zip(reference.token_ids, answer.token_ids, strict=True)):
            if want != got:
                raise UnmetError(f"token {place + 1} is {want} ({reference_name}) and {got} ({name})")
        if len(reference.logprobs) == len(answer.logprobs):
            apart = max((abs(a - b) for a, b in zip(reference.logprobs, answer.logprobs, strict=True)), default=0.0)
            spread, farthest = max((spread, farthest), (apart, name))
    seen = f"{len(reference.token_ids)} tokens equal in {len(answers)} answers, log probabilities within {spread:.1e}"
    exact = dtype in ("float32", "float")
    if exact and spread > LOGPROB_TOLERANCE:
        raise UnmetError(
            f"{seen}: {farthest} is apart by more than {LOGPROB_TOLERANCE:g}, so the KV read is not the KV computed"
        )
    if exact and spread > REMARKABLE:
        seen += f" ({farthest}: more than the order of sums explains, and as much as starts of one engine can differ)"
    if len(set(reference.token_ids)) == 1:
        # Honest about a weak witness: a model that always says the same would say it from wrong KV too.
        seen += " (the model repeats one token: the log probabilities are what tells)"
    return seen
