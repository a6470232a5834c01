"""Whether the weights of each node are those of the others and of the record. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kvstrata.verify.check import UnmetError
from kvstrata.verify.weights.files import ModelFiles
from kvstrata.verify.weights.record import Known

type Answers = Sequence[float]

# By how much the log probabilities of the same tokens may differ on average, by what the model computes in: sums in
# another order, another kernel for another batch. Other weights differ by whole numbers. In float32 the answers of some
# forty starts of one engine on a CPU were equal to the last digit, but those of one start were 2.4e-3 apart, by a cause
# that was not found, with every file as recorded: a bound of 1e-3 called that other weights.
TOLERANCE = {"float32": 0.02, "float": 0.02, "float16": 0.02, "half": 0.02, "bfloat16": 0.1, "auto": 0.1}
COARSE = 0.25


def tolerance(dtype: str, kv_dtype: str = "auto") -> float:
    """The greatest mean difference that is still the same model, in nats."""
    return COARSE if kv_dtype not in ("auto", dtype) else TOLERANCE.get(dtype, COARSE)


def apart(one: Answers, other: Answers) -> float:
    """The mean absolute difference; infinite where they are not of the same tokens."""
    if len(one) != len(other) or not one:
        return float("inf")
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)


def reference[T](items: Mapping[str, T], same: Callable[[T, T], bool]) -> T | None:
    """The item that more than half of all agree with, however many there are; None where there is no such one."""
    for item in items.values():
        if 2 * sum(same(item, other) for other in items.values()) > len(items):
            return item
    return None


def files(name: str, found: Mapping[str, ModelFiles], known: Known | None) -> str:
    """The node's files are the record's and, without a record, those of the other nodes."""
    mine = found[name]
    if known is not None:
        told = mine.differences(known.files)
        if told:
            raise UnmetError(f"files {mine.digest}, {known.files.digest} when recorded {known.recorded_at}: {told}")
        return f"files {mine.digest} as recorded {known.recorded_at}"
    most = reference(found, lambda one, other: one == other)
    others = {node: its for node, its in found.items() if its != mine}
    if not others:
        return f"files {mine.digest}, {'the same on all nodes' if len(found) > 1 else 'one node, no record yet'}"
    if most == mine:
        return f"files {mine.digest}, the same on most nodes"
    node, its = next((node, its) for node, its in others.items() if most is None or its == most)
    raise UnmetError(
        f"files differ: {mine.digest} here, {its.digest} on {node}: {mine.differences(its)}"
        + ("; no record tells which are right" if most is None else "")
    )


def answers(engine: str, found: Mapping[str, Answers], known: Known | None, most_apart: float) -> str:
    """The engine's log probabilities are the record's and, without a record, those of the other engines."""
    mine = found[engine]
    recorded = None if known is None else known.answers
    if known is not None and recorded is not None:
        by = apart(mine, recorded)
        if by > most_apart:
            raise UnmetError(f"answers as other weights do: {_by(by)} from those recorded {known.recorded_at}")
        return f"answers within {_by(by)} of the record"
    most = reference(found, lambda one, other: apart(one, other) <= most_apart)
    others = {name: by for name, its in found.items() if (by := apart(mine, its)) > most_apart}
    widest = max((apart(mine, its) for name, its in found.items() if name != engine), default=0.0)
    if not others:
        return f"answers within {_by(widest)} of the others" if len(found) > 1 else "one engine, no answers to compare"
    if most is not None and apart(mine, most) <= most_apart:
        return "answers as most engines do"
    name, by = next(iter(others.items()))
    raise UnmetError(
        f"answers differ from those of {name} by {_by(by)}"
        + ("; no record tells which are right" if most is None else "")
    )


def _by(nats: float) -> str:
    return "another number of tokens" if nats == float("inf") else f"{nats:.1e} nats"
