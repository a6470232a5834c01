"""Two workers against one at saturation: more requests than they can answer, always."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from kvstrata.contract.arms import Arm
from kvstrata.contract.client import Client, Front, Request
from kvstrata.contract.local import LocalTarget
from kvstrata.contract.workload import Conversations, Shape

_TIMEOUT_S = 120.0
_WARM = 0.25


@dataclass(frozen=True)
class Saturation:
    """What so many workers answered, asked by so many clients without a pause."""

    arm: str
    workers: int
    clients: int
    requests: int
    failed: int
    seconds: float
    output_tokens: int
    prompt_tokens: int
    cached_tokens: int

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


async def saturate(front: Front, talk: Conversations, shape: Shape, clients: int, seconds: float) -> list[int]:
    """Return requests, failures, and output, prompt and cached tokens of all but the first quarter of the time."""
    client = Client(front, _TIMEOUT_S)
    began = time.monotonic()
    counted = [0, 0, 0, 0, 0]

    async def one(number: int) -> None:
        while True:
            conversation = talk[number]
            for turn in range(len(conversation.turns)):
                if time.monotonic() - began >= seconds:
                    return
                request = Request(conversation.name, turn, conversation.prompt(turn), shape.output, stream=False)
                answer = await client.send(request)
                if began + _WARM * seconds <= answer.ended < began + seconds:
                    counted[0] += answer.ok
                    counted[1] += not answer.ok
                    counted[2] += answer.output_tokens
                    counted[3] += answer.prompt_tokens
                    counted[4] += answer.cached_tokens
            number += clients

    async with asyncio.TaskGroup() as tasks:
        for number in range(clients):
            tasks.create_task(one(number))
    client.close()
    return counted


def compare(
    target: LocalTarget, arm: Arm, talk: Conversations, shape: Shape, clients: int, seconds: float
) -> Saturation:
    """Return what the target's workers answer through an arm's router; `clients` for each worker."""
    count = len(target.workers)
    with target.route(arm) as front:
        counted = asyncio.run(saturate(front, talk, shape, clients * count, seconds))
    requests, failed, output, prompt, cached = counted
    return Saturation(arm.name, count, clients * count, requests, failed, seconds * (1 - _WARM), output, prompt, cached)
