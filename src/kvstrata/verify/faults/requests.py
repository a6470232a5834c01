"""The steady stream of requests that goes on while services are stopped, as a client would send them."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from kvstrata.verify.check import Json, UnableError, UnmetError

CLIENTS = 3
OUTPUT_TOKENS = 16
# A client that gets its answer sooner waits until then: the stream is steady, not as much as the site can take.
PACE_S = 1.0
# What a client does with an error: it waits a moment and sends the same request once more.
RESEND_S = 0.5
ATTEMPTS = 2
_SYLLABLES = ("ka", "lo", "mi", "nu", "re", "so", "ti", "va", "be", "du", "fe", "go", "hi", "ju", "pa", "we")


@dataclass(frozen=True)
class Attempt:
    """One sending. `started_s` counts from the stream's start; `error` is None where the answer was in full.

    One that was not `carried` never reached the site: it says nothing of it.
    """

    started_s: float
    seconds: float
    error: str | None
    carried: bool = True

    @property
    def failed(self) -> bool:
        """Whether the site gave no answer, or not the whole one."""
        return self.error is not None and self.carried


@dataclass(frozen=True)
class Sample:
    """One request: what was asked, and each sending of it."""

    request: int
    prompt: int
    attempts: tuple[Attempt, ...]

    @property
    def answered(self) -> bool:
        """Whether the last sending brought the whole answer."""
        return self.attempts[-1].error is None

    @property
    def failed(self) -> bool:
        """Whether the site failed any sending of it."""
        return any(attempt.failed for attempt in self.attempts)

    @property
    def carried(self) -> bool:
        """Whether its last sending reached the site."""
        return self.attempts[-1].carried

    @property
    def started_s(self) -> float:
        """When it was first sent."""
        return self.attempts[0].started_s

    @property
    def ended_s(self) -> float:
        """When it was answered, or given up."""
        return self.attempts[-1].started_s + self.attempts[-1].seconds

    @property
    def seconds(self) -> float:
        """What a client waited for it, over all sendings."""
        return self.ended_s - self.started_s

    def rows(self, fault: str) -> list[dict[str, Json]]:
        """Every sending of it as a flat row of the report's raw numbers."""
        return [
            {
                "fault": fault,
                "request": self.request,
                "prompt": self.prompt,
                "sending": number,
                "started_s": round(attempt.started_s, 3),
                "seconds": round(attempt.seconds, 3),
                "error": attempt.error,
                "carried": attempt.carried,
            }
            for number, attempt in enumerate(self.attempts, 1)
        ]


def prompt_of(request: int) -> int:
    """The number of the prompt of the n-th request: every prompt comes twice, the second time some requests later."""
    pair, again = divmod(request, 2)
    return max(0, pair - 2 * CLIENTS) if again else pair


def text_of(seed: str, prompt: int, words: int) -> str:
    """The text of a prompt: the same for the same seed and number, and different from its first word on otherwise."""
    # Not for secrets: it must be the same text again.
    choose = random.Random(f"{seed}-{prompt}")  # noqa: S311
    body = ("".join(choose.choices(_SYLLABLES, k=choose.randint(1, 3))) for _ in range(words))
    return f"{seed}-{prompt} {' '.join(body)}"


class Stream:
    """Some clients that send one request after another until the block ends.

    `send` sends the prompt of the given number and returns how many tokens came; it raises UnmetError where no answer
    came, and UnableError where the request did not get to the site. It is called from several threads.
    """

    def __init__(self, send: Callable[[int], int], *, clients: int = CLIENTS, pace_s: float = PACE_S) -> None:
        """Nothing is sent before `resume`."""
        self._send = send
        self._pace_s = pace_s
        self._began = time.monotonic()
        self._lock = threading.Condition()
        self._next = 0
        self._flying = 0
        self._samples: list[Sample] = []
        self._ended = False
        self._paused = True
        self._threads = [
            threading.Thread(target=self._client, name=f"faults-client-{number}", daemon=True)
            for number in range(clients)
        ]

    def __enter__(self) -> Stream:
        """Start the clients, which wait for `resume`."""
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send nothing more. What is under way is not waited for."""
        with self._lock:
            self._ended = True
            self._lock.notify_all()

    @property
    def now_s(self) -> float:
        """Seconds since the stream began."""
        return time.monotonic() - self._began

    def samples(self) -> tuple[Sample, ...]:
        """Every request that ended so far."""
        with self._lock:
            return tuple(self._samples)

    def hold(self, seconds: float, requests: int, timeout_s: float) -> bool:
        """Wait `seconds`, and until so many requests sent from now on have ended; whether within `timeout_s`."""
        since = self.now_s

        def enough() -> bool:
            ended = sum(sample.started_s >= since for sample in self._samples)
            return ended >= requests and self.now_s >= since + seconds

        # Every request that ends wakes it.
        with self._lock:
            return self._lock.wait_for(enough, timeout_s)

    def pause(self, timeout_s: float) -> bool:
        """Send nothing until `resume`, and wait for what is under way; whether that ended in time."""
        with self._lock:
            self._paused = True
            return self._lock.wait_for(lambda: self._flying == 0, timeout_s)

    def resume(self) -> None:
        """Begin to send, or go on after a pause."""
        with self._lock:
            self._paused = False
            self._lock.notify_all()

    def _client(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._ended or not self._paused)
                if self._ended:
                    return
                request, self._next = self._next, self._next + 1
                self._flying += 1
            sample = self._request(request)
            with self._lock:
                self._flying -= 1
                self._samples.append(sample)
                self._lock.notify_all()
                self._lock.wait_for(lambda: self._ended, max(0.0, sample.started_s + self._pace_s - self.now_s))

    def _request(self, request: int) -> Sample:
        prompt = prompt_of(request)
        attempts: list[Attempt] = []
        while len(attempts) < ATTEMPTS:
            if attempts:
                time.sleep(RESEND_S)
            started = self.now_s
            error, carried = self._once(prompt)
            attempts.append(Attempt(started, self.now_s - started, error, carried))
            if error is None:
                break
        return Sample(request, prompt, tuple(attempts))

    def _once(self, prompt: int) -> tuple[str | None, bool]:
        """What went wrong, if anything, and whether the request reached the site."""
        try:
            tokens = self._send(prompt)
        except UnmetError as error:
            return str(error), True
        except UnableError as error:
            return str(error), False
        return None if tokens == OUTPUT_TOKENS else f"{tokens} tokens came, asked for were {OUTPUT_TOKENS}", True
