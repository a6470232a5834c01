"""Lead conversations through two turns, and have them stay, be moved by a drain, or be moved by load in between."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kvstrata.bench.moved.record import Case, Turn
from kvstrata.bench.moved.replicas import Pair
from kvstrata.verify.check import UnmetError
from kvstrata.verify.tiers import judge, prompt

# The questions and answers between a conversation's turns.
_QUESTION_WORDS = 24
# More than any conversation's turns need; they are broken off at the end.
_LOAD_TOKENS = 2048
_LOAD_WORDS = 48


@dataclass(frozen=True)
class Settings:
    """What is done. Tokens are of the first turn's prompt; `load` is how many requests keep the first node busy."""

    conversations: int
    repeats: int
    prompt_tokens: int
    output_tokens: int
    load: int


@dataclass(frozen=True)
class Conversation:
    """One whose first turn was answered by `node`. `text` is the prompt of its second turn."""

    seed: str
    node: str
    text: str
    first_tokens: int


def measure(pair: Pair, settings: Settings, seed: str, say: Callable[[str], None]) -> Iterator[Turn]:
    """Yield every second turn as it is measured, and leave all replicas in service.

    Raises UnmetError, UnableError or an error of draining where the site doesn't do what it should.
    """
    try:
        warm_up(pair, seed)
        for repeat in range(settings.repeats):
            # Each node is the one that is left in turn: the nodes may differ.
            home = pair.names[repeat % 2]
            yield from _Repeat(pair, settings, f"{seed}-{repeat}", repeat, home, say).turns()
    finally:
        pair.restore()


def warm_up(pair: Pair, seed: str) -> None:
    """What an engine does only for its first request must not count."""
    for subject in pair.subjects.values():
        pair.ask(prompt.warm_up(seed), 2, subject.engine)


class _Repeat:
    def __init__(
        self, pair: Pair, settings: Settings, seed: str, repeat: int, home: str, say: Callable[[str], None]
    ) -> None:
        self._pair, self._settings, self._seed, self._repeat = pair, settings, seed, repeat
        self._home, self._away = home, pair.other(home)
        self._say = say

    def turns(self) -> Iterator[Turn]:
        count = self._settings.conversations
        self._pair.serve_from(self._home)
        before = self._pair.read()[self._home]
        kinds = ["stay", "drain", *(["load"] if self._settings.load else [])]
        talks = {kind: [self._first_turn(f"{kind}{number}") for number in range(count)] for kind in kinds}
        # Not how fast stores write, but what reading from them costs is asked here.
        written, wanted = self._pair.await_stored(self._home, before), self._chunks(talks)
        if written < wanted:
            self._say(
                f"{self._home} wrote {written} of {wanted} chunks to the stores: the others will be computed again"
            )
        for talk in talks["stay"]:
            yield self._second_turn(Case.STAYED, talk)
        self._pair.serve_from(self._away)
        for number, talk in enumerate(talks["drain"]):
            yield self._second_turn(Case.DRAINED, talk)
            yield self._second_turn(Case.FRESH, self._fresh(f"fresh{number}", talk))
        if self._settings.load:
            yield from self._under_load(talks["load"])

    def _under_load(self, talks: list[Conversation]) -> Iterator[Turn]:
        """The router chooses between the busy home of a conversation and an idle node without its prefix."""
        self._pair.serve_from(self._home)
        with self._busy():
            self._pair.rejoin(self._away)
            for number, talk in enumerate(talks):
                yield self._second_turn(None, talk)
                yield self._second_turn(Case.LOAD_FRESH, self._fresh(f"busy{number}", talk))

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """Keep the home node busy with long answers."""
        over, begun = threading.Event(), threading.Semaphore(0)
        threads = [
            threading.Thread(target=self._long_answer, args=(number, over, begun), daemon=True)
            for number in range(self._settings.load)
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in threads:
                if not begun.acquire(timeout=120):
                    raise UnmetError(f"the load on {self._home} did not begin within 120 s")
            yield
            if not all(thread.is_alive() for thread in threads):
                raise UnmetError(f"the load on {self._home} ended before the turns were measured")
        finally:
            over.set()
            for thread in threads:
                thread.join(30)

    def _long_answer(self, number: int, over: threading.Event, begun: threading.Semaphore) -> None:
        body = {
            "model": self._pair.model,
            "prompt": f"{self._seed} load {number} " + "busy " * _LOAD_WORDS,
            "max_tokens": _LOAD_TOKENS,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
        with contextlib.closing(self._pair.router.events("/v1/completions", body, 900)) as events:
            for count, _ in enumerate(events):
                if not count:
                    begun.release()
                if over.is_set():
                    return

    def _first_turn(self, name: str) -> Conversation:
        engine = self._pair.subjects[self._home].engine
        seed = f"{self._seed}-{name}"
        built = prompt.build(engine, self._pair.model, self._settings.prompt_tokens, seed)
        before = self._pair.read()
        answer = self._pair.ask(built.text, self._settings.output_tokens)
        node, _ = self._pair.went_to(before)
        if node != self._home:
            raise UnmetError(f"the first turn of {name} went to {node}, and only {self._home} is in service")
        self._say(f"{name}: first turn of {built.tokens} tokens on {node}, first token after {answer.ttft_s:.2f} s")
        question = " ".join(f"{seed[-6:]}{number}" for number in range(_QUESTION_WORDS))
        return Conversation(seed, node, f"{built.text} {answer.text} {question}", built.tokens)

    def _fresh(self, name: str, like: Conversation) -> Conversation:
        """A conversation as long as another one, that nobody has seen."""
        engine = self._pair.subjects[self._away].engine
        tokens = int(engine.post("/tokenize", {"model": self._pair.model, "prompt": like.text})["count"])
        seed = f"{self._seed}-{name}"
        built = prompt.build(engine, self._pair.model, tokens, seed)
        return Conversation(seed, "", built.text, 0)

    def _second_turn(self, case: Case | None, talk: Conversation) -> Turn:
        before = self._pair.read()
        answer = self._pair.ask(talk.text, self._settings.output_tokens)
        node, counted = self._pair.went_to(before)
        found = case or (Case.LOAD_STAYED if node == talk.node else Case.LOAD_MOVED)
        self._check(found, talk, node)
        turn = Turn(
            case=found,
            repeat=self._repeat,
            seed=talk.seed,
            came_from=talk.node or None,
            went_to=node,
            ttft_s=round(answer.ttft_s, 4),
            prompt_tokens=answer.prompt_tokens,
            own_cache=round(counted.local_hits),
            # What was found is not what was loaded: an engine that has a prefix itself loads nothing of it.
            l1=round(max(0.0, counted.transferred - counted.l2_hits)),
            l2=round(min(counted.transferred, counted.l2_hits)),
            computed=round(counted.computed),
        )
        self._say(
            f"{found.value}: {talk.node or 'nowhere'} to {node}, first token after {turn.ttft_s:.2f} s; of "
            f"{turn.prompt_tokens} tokens {turn.own_cache} own, {turn.l1} L1, {turn.l2} L2, {turn.computed} computed"
        )
        return turn

    def _check(self, case: Case, talk: Conversation, node: str) -> None:
        wanted = {Case.STAYED: self._home, Case.DRAINED: self._away, Case.FRESH: self._away}.get(case, node)
        if node != wanted:
            raise UnmetError(f"{talk.seed} ({case.value}) went to {node}, and only {wanted} is in service")

    def _chunks(self, talks: dict[str, list[Conversation]]) -> int:
        size = self._pair.subjects[self._home].lmcache.chunk_size
        return sum(judge.whole_chunks(talk.first_tokens, size) for some in talks.values() for talk in some)
