"""(5) of the contract: what a router adds to a request, at a rate that does not wait for it."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from kvstrata.bench.serving.drivers.http import HttpError, Pool, Target
from kvstrata.bench.statistics import percentile
from kvstrata.contract.client import PATH, Front

_TIMEOUT_S = 10.0
_PROMPT_WORDS = 50


@dataclass(frozen=True)
class Overhead:
    """One round: the same requests through the router and past it, in turns. Latencies count from when one was due."""

    wanted_per_s: float
    reached_per_s: float
    requests: int
    failed: int
    routed_p50_ms: float
    routed_p99_ms: float
    direct_p50_ms: float
    direct_p99_ms: float
    router_cores: float
    client_cores: float

    @property
    def added_p50_ms(self) -> float:
        """What the router adds to the median."""
        return self.routed_p50_ms - self.direct_p50_ms

    @property
    def added_p99_ms(self) -> float:
        """What the router adds to the 99th percentile."""
        return self.routed_p99_ms - self.direct_p99_ms


async def measure(routed: Front, direct: Front, per_s: float, seconds: float, cpu_s: Callable[[], float]) -> Overhead:
    """Send at a fixed rate, half of the time through the router, half directly, in short turns; see Overhead.

    cpu_s: the processor seconds of the router until now.
    """
    through: list[float] = []
    past: list[float] = []
    failed, router_s, client_s, routed_s = 0, 0.0, 0.0, 0.0
    turns = 4
    gc.collect()
    gc.freeze()
    try:
        for _ in range(turns):
            for front, found in ((routed, through), (direct, past)):
                cpu, own, began = cpu_s(), time.process_time(), time.monotonic()
                lost = await _send(front, per_s, seconds / turns / 2, found)
                if front is routed:
                    failed += lost
                    router_s += cpu_s() - cpu
                    client_s += time.process_time() - own
                    routed_s += time.monotonic() - began
    finally:
        gc.unfreeze()
    return Overhead(
        per_s,
        len(through) / routed_s,
        len(through),
        failed,
        percentile(through, 50) * 1e3,
        percentile(through, 99) * 1e3,
        percentile(past, 50) * 1e3,
        percentile(past, 99) * 1e3,
        router_s / routed_s,
        client_s / routed_s,
    )


async def _send(front: Front, per_s: float, seconds: float, found: list[float]) -> int:
    """Send at the rate; add each latency in seconds to `found`; return how many failed."""
    target = Target.of(front.url)
    pool = Pool(target)
    failed = 0
    prompt = " ".join(["routed"] * _PROMPT_WORDS)

    async def one(due: float, number: int) -> None:
        nonlocal failed
        body = {"model": front.model, "prompt": f"{number} {prompt}", "max_tokens": 1, **front.more}
        connection = await pool.take()
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await connection.post(target.prefix + PATH, {}, json.dumps(body).encode(), _ignore)
        except (OSError, HttpError, TimeoutError):
            connection.close()
            failed += 1
            return
        if connection.status != HTTPStatus.OK:
            failed += 1
        else:
            found.append(time.monotonic() - due)
        pool.give(connection)

    # Connections are opened before the clock begins: no client opens one for each request.
    before = len(found)
    await asyncio.gather(*(one(time.monotonic(), -number) for number in range(8)))
    del found[before:]
    failed = 0
    began = time.monotonic()
    tasks = set[asyncio.Task[None]]()
    for number in range(round(per_s * seconds)):
        due = began + number / per_s
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(one(due, number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    pool.close()
    return failed


def _ignore(_: bytes) -> None:
    """Take a piece of a body that nobody reads."""
