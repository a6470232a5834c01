"""How much KV a workload wants to find again: what decides which tiers it tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

from kvstrata.bench.serving.model import Conversation, Workload

# Prefixes are told apart by pieces of so many tokens, so figures are exact to that much for each place of a fork.
_UNIT = 64


@dataclass(frozen=True)
class WorkingSet:
    """Unique prefix tokens, of prompts and answers.

    live: most that are held at one moment because a later request reads them, or a running one uses them. A cache of
    that many tokens finds all there is to find. total: all that are ever made. prompt: what all prompts have together,
    and found_at_best how much of it an earlier request had made.
    """

    live: int
    total: int
    prompt: int
    found_at_best: int

    @property
    def best_hit_rate(self) -> float:
        """Prompt tokens that some earlier request had made / all prompt tokens."""
        return self.found_at_best / self.prompt if self.prompt else 0.0


def working_set_tokens(workload: Workload) -> WorkingSet:
    """Return a workload's working set in an ideal order of requests.

    Closed loop: all active conversations send one turn, then all the next, and so on. Open loop: by time of begin, one
    request after the other; a later turn follows its conversation's earlier one as if it took no time.
    """
    nodes: dict[tuple[int, tuple[int, ...]], int] = {}
    sizes: list[int] = []
    first: list[int] = []
    last: list[int] = []
    made: list[int] = []
    prompt = found = 0
    answers = count(-1, -1)
    chains: dict[str, list[int]] = {}
    ends: dict[str, list[tuple[int, int]]] = {}
    for moment, conversation, turn in _order(workload):
        if turn == 0:
            tokens, ends[conversation.name] = _tokens(conversation, answers)
            chains[conversation.name] = _chain(tokens, nodes, sizes)
            grown = len(sizes) - len(first)
            first += [-1] * grown
            last += [-1] * grown
            made += [0] * grown
        asked, whole = ends[conversation.name][turn]
        prompt += asked
        position = 0
        for node in chains[conversation.name]:
            if position >= whole:
                break
            if first[node] < 0:
                first[node] = moment
            elif first[node] < moment:
                found += max(0, min(made[node], asked - position))
            last[node] = moment
            made[node] = max(made[node], min(sizes[node], whole - position))
            position += sizes[node]
        if turn == len(conversation.turns) - 1:
            del chains[conversation.name]
    return WorkingSet(_peak(sizes, first, last), sum(sizes), prompt, found)


def _order(workload: Workload) -> Iterator[tuple[int, Conversation, int]]:
    """Yield moment, conversation and turn of every request; what runs together has one moment."""
    if workload.active is None:
        due = sorted(workload.conversations, key=lambda conversation: conversation.start_s or 0.0)
        moments = count()
        for conversation in due:
            for turn in range(len(conversation.turns)):
                yield next(moments), conversation, turn
        return
    waiting = iter(workload.conversations)
    slots: list[tuple[Conversation, int]] = []
    for moment in count():
        slots += [(begun, 0) for begun in islice(waiting, workload.active - len(slots))]
        if not slots:
            return
        for conversation, turn in slots:
            yield moment, conversation, turn
        slots = [(held, turn + 1) for held, turn in slots if turn + 1 < len(held.turns)]


def _tokens(conversation: Conversation, answers: Iterator[int]) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the whole conversation, and where each turn's prompt and answer end. Answers are tokens of their own."""
    tokens: list[int] = []
    ends = []
    for turn in conversation.turns:
        tokens += [ord(letter) for letter in turn.prompt] if isinstance(turn.prompt, str) else turn.prompt
        asked = len(tokens)
        tokens += [next(answers) for _ in range(turn.output_tokens)]
        ends.append((asked, len(tokens)))
    return tokens, ends


def _chain(tokens: Sequence[int], nodes: dict[tuple[int, tuple[int, ...]], int], sizes: list[int]) -> list[int]:
    chain, parent = [], -1
    for start in range(0, len(tokens), _UNIT):
        piece = tuple(tokens[start : start + _UNIT])
        node = nodes.get((parent, piece))
        if node is None:
            node = nodes[(parent, piece)] = len(sizes)
            sizes.append(len(piece))
        chain.append(node)
        parent = node
    return chain


def _peak(sizes: Sequence[int], first: Sequence[int], last: Sequence[int]) -> int:
    changes: dict[int, int] = {}
    for size, begin, end in zip(sizes, first, last, strict=True):
        if begin >= 0:
            changes[begin] = changes.get(begin, 0) + size
            changes[end + 1] = changes.get(end + 1, 0) - size
    live = most = 0
    for moment in sorted(changes):
        live += changes[moment]
        most = max(most, live)
    return most
