"""Send a load through the router, as clients would: streaming, `concurrency` at a time, each when one before ended."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kvstrata.verify.check import UnmetError
from kvstrata.verify.http import Service
from kvstrata.verify.throughput.figures import Sample


@dataclass(frozen=True)
class Load:
    """What is sent. No request begins after `max_s` seconds, and those under way are cut off then."""

    model: str
    prompts: Sequence[str]
    output_tokens: int
    concurrency: int
    max_s: float


@dataclass(frozen=True)
class Sent:
    """Every request that was begun, in the order of the prompts.

    `busy_share` is how much of one processor core this process needed meanwhile. It has one interpreter: near 1 it is
    the sender that was slow, and the figures are of it.
    """

    samples: tuple[Sample, ...]
    busy_share: float


def run(router: Service, load: Load, clock: Callable[[], float] = time.monotonic) -> Sent:
    """Send everything, or what the time allows."""
    began, worked = clock(), time.process_time()
    numbers = itertools.count()
    taking = threading.Lock()

    def worker(_: int) -> list[Sample]:
        done: list[Sample] = []
        while True:
            with taking:
                number = next(numbers)
            if number >= len(load.prompts) or clock() - began >= load.max_s:
                return done
            done.append(_one(router, load, number, began, clock))

    workers = min(load.concurrency, len(load.prompts))
    with ThreadPoolExecutor(workers) as pool:
        samples = [sample for found in pool.map(worker, range(workers)) for sample in found]
    # Starting a few threads is no sign of anything in a load that was over at once.
    busy = (time.process_time() - worked) / max(clock() - began, 1.0)
    return Sent(tuple(sorted(samples, key=lambda sample: sample.number)), round(busy, 3))


def _one(router: Service, load: Load, number: int, began: float, clock: Callable[[], float]) -> Sample:
    body = {
        "model": load.model,
        "prompt": load.prompts[number],
        "max_tokens": load.output_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    started, deadline = clock(), began + load.max_s
    arrivals: list[float] = []
    prompt_tokens, output_tokens = 0, 0
    error, cut = None, False
    try:
        # What is cut off is closed at once, so that the engine stops working for it.
        with contextlib.closing(router.events("/v1/completions", body, max(1.0, deadline - started))) as events:
            for event in events:
                now = clock()
                if "error" in event:
                    raise UnmetError(f"the stream carried an error: {event['error']}")
                usage = event.get("usage") or {}
                prompt_tokens = usage.get("prompt_tokens", prompt_tokens)
                output_tokens = usage.get("completion_tokens", output_tokens)
                if event.get("choices"):
                    arrivals.append(now)
                if now > deadline and not usage:
                    cut = True
                    break
    except UnmetError as unmet:
        cut = clock() >= deadline
        error = None if cut else str(unmet)
    ended = clock()
    # Without a usage an arrival is a token, which is what engines send unless they are hurried.
    tokens = output_tokens or len(arrivals)
    if error is None and not cut and tokens != load.output_tokens:
        error = f"{tokens} tokens came, asked for were {load.output_tokens}"
    return Sample(
        number=number,
        started_s=started - began,
        ttft_s=arrivals[0] - started if arrivals else None,
        e2e_s=ended - started,
        prompt_tokens=prompt_tokens,
        output_tokens=tokens,
        gaps_s=tuple(later - earlier for earlier, later in itertools.pairwise(arrivals)),
        error=error,
        cut=cut,
    )
