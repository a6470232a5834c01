"""Conversations held for a while: so many at a time, each with its own think times, the ended ones followed by new."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, replace
from itertools import count

from kvstrata.contract.client import Answer, Client, Front, Request
from kvstrata.contract.workload import Conversations, Shape


@dataclass(frozen=True)
class Load:
    """How much is asked for."""

    shape: Shape
    slots: int
    """Conversations that are held at a time."""
    seconds: float
    stream_every: int = 2
    """Each so-manieth conversation is streamed; 0: none."""
    timeout_s: float = 60.0
    """Of one attempt."""

    def slowed(self, times: float) -> Load:
        """Return the same with all times so many times as long."""
        return replace(
            self, shape=self.shape.slowed(times), seconds=self.seconds * times, timeout_s=self.timeout_s * times
        )


@dataclass(frozen=True)
class Held:
    """What came of a load. Times on the machine's monotonic clock."""

    began: float
    ended: float
    answers: tuple[Answer, ...]

    @property
    def seconds(self) -> float:
        """How long new requests were sent."""
        return self.ended - self.began

    @property
    def answering_s(self) -> float:
        """The sum of the times that answers took."""
        return sum(answer.ended - answer.last_sent for answer in self.answers)


async def hold(front: Front, load: Load, conversations: Conversations, seed: int) -> Held:
    """Hold conversations for `load.seconds`; what is under way then is waited for."""
    return await Holder(front, load, conversations, seed).run()


class Holder:
    """A load under way; `answers` grows, for those who do things meanwhile."""

    def __init__(self, front: Front, load: Load, conversations: Conversations, seed: int) -> None:
        """Begin with nothing sent."""
        self._load, self._conversations = load, conversations
        self._client = Client(front, load.timeout_s, seed)
        self._numbers = count(load.slots)
        self._over = 0.0
        self._ended = asyncio.Event()
        self.answers: list[Answer] = []

    async def run(self) -> Held:
        """See hold()."""
        began = time.monotonic()
        self._over = began + self._load.seconds
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(self._load.slots):
                    tasks.create_task(self._slot(number))
        finally:
            self._client.close()
        return Held(began, self._over, tuple(self.answers))

    def end(self) -> None:
        """Send nothing new from now on, however long the load was to last."""
        self._over = min(self._over, time.monotonic())
        self._ended.set()

    async def _slot(self, number: int) -> None:
        turn, wait_s = self._conversations.begins_at(number, self._load.slots)
        while True:
            conversation = self._conversations[number]
            for index in range(turn, len(conversation.turns)):
                if not await self._wait(wait_s):
                    return
                stream = bool(self._load.stream_every) and number % self._load.stream_every == 0
                tokens = self._load.shape.output
                prompt = conversation.prompt(index)
                request = Request(conversation.name, index, prompt, tokens, stream, conversation.hot)
                answer = await self._client.send(request)
                self.answers.append(answer)
                if index + 1 < len(conversation.turns):
                    wait_s = conversation.turns[index + 1].think_s
            number, turn = next(self._numbers), 0
            wait_s = self._conversations[number].turns[0].think_s

    async def _wait(self, seconds: float) -> bool:
        """Wait; return False at the end of the load."""
        left = self._over - time.monotonic()
        if seconds >= left:
            return False
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), seconds)
        return not self._ended.is_set()
