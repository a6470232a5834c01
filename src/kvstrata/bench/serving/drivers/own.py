"""Our own load generator: conversations with the answers really given, in closed or open loop.

Closed loop: `active` conversations at a time, each with one request at a time; the next turn follows its think time,
the next conversation the end of one. Open loop: each conversation begins at its time, however slow the engine is, and
times count from when a request was due: an engine that stalls is charged for all who had to wait (no coordinated
omission).
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.drivers.completion import PATH, Completion, request_body, short_of
from kvstrata.bench.serving.drivers.health import Probe
from kvstrata.bench.serving.drivers.http import ClosedError, HttpError, Pool, Target
from kvstrata.bench.serving.model import Conversation, Endpoint, Load, RequestSample, Workload

NAME = "own"
# What routers that keep a conversation on one replica look at.
SESSION_HEADER = "X-Session-ID"
# How many open-loop requests are written before they are due: a burst then goes out at once.
_AHEAD = 64


class OwnDriver:
    """Sends any workload."""

    name = NAME

    def refuses(self, workload: Workload) -> str | None:  # noqa: ARG002 - it takes all
        """Return None: it sends every workload as it is declared."""
        return None

    def run(self, endpoint: Endpoint, workload: Workload, sample_outputs: frozenset[str], deadline_s: float) -> Load:
        """Send the workload, as kvstrata.bench.serving.model.Driver says."""
        try:
            target = Target.of(endpoint.url)
        except ValueError as error:
            raise BenchError(f"endpoint: {error}") from None
        return asyncio.run(_Run(endpoint, target, workload, sample_outputs, deadline_s).run())


class _Run:
    def __init__(
        self, endpoint: Endpoint, target: Target, workload: Workload, kept: frozenset[str], deadline_s: float
    ) -> None:
        self._endpoint, self._workload, self._kept, self._deadline_s = endpoint, workload, kept, deadline_s
        self._pool = Pool(target)
        self._path = target.prefix + PATH
        self._samples: dict[tuple[str, int], RequestSample] = {}
        self._why: dict[str, str] = {}
        self._uncounted = 0
        self._begin = 0.0

    async def run(self) -> Load:
        # What is alive now stays so: collecting it again and again would only stop the clock's readers.
        gc.collect()
        gc.freeze()
        self._begin = time.perf_counter()
        try:
            async with Probe() as probe:
                await self._send_all()
                duration = self._now()
        finally:
            gc.unfreeze()
            self._pool.close()
        samples = tuple(self._all_samples(duration))
        sent = [sample for sample in samples if sample.key in self._samples]
        late = [sample.started_s - sample.scheduled_s for sample in sent] if self._workload.open_loop else []
        return Load(NAME, samples, duration, probe.health(late), tuple(self._notes()))

    async def _send_all(self) -> None:
        if self._workload.active is None:
            jobs = [asyncio.create_task(self._by_the_clock())]
        else:
            waiting = iter(self._workload.conversations)
            slots = min(self._workload.active, len(self._workload.conversations))
            jobs = [asyncio.create_task(self._one_after_another(waiting)) for _ in range(slots)]
        _, late = await asyncio.wait(jobs, timeout=self._deadline_s)
        for job in late:
            job.cancel()
        for ended in await asyncio.gather(*jobs, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    async def _one_after_another(self, waiting: Iterator[Conversation]) -> None:
        for conversation in waiting:
            await self._hold(conversation, self._first_body(conversation), None)

    async def _by_the_clock(self) -> None:
        ready: asyncio.Queue[tuple[Conversation, bytes] | None] = asyncio.Queue(_AHEAD)
        due = sorted(self._workload.conversations, key=lambda conversation: conversation.start_s or 0.0)

        async def write() -> None:
            for conversation in due:
                await ready.put((conversation, self._first_body(conversation)))
                await asyncio.sleep(0)
            await ready.put(None)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            while entry := await ready.get():
                conversation, body = entry
                start_s = conversation.start_s or 0.0
                await asyncio.sleep(max(0.0, start_s - self._now()))
                tasks.create_task(self._hold(conversation, body, start_s))

    async def _hold(self, conversation: Conversation, body: bytes, due_s: float | None) -> None:
        """Send a conversation's turns. due_s: when the first was due (open loop), None: now (closed loop)."""
        ids: list[int] = []
        text = ""
        for index, turn in enumerate(conversation.turns):
            if index:
                if not isinstance(turn.prompt, str) and not ids:
                    self._why[conversation.name] = f"the server gave no token ids for turn {index - 1}"
                    return
                prompt = text + turn.prompt if isinstance(turn.prompt, str) else [*ids, *turn.prompt]
                body = request_body(self._endpoint, prompt, turn, ids=self._wants_ids(conversation, index))
                if turn.think_s:
                    await asyncio.sleep(turn.think_s if due_s is None else max(0.0, due_s - self._now()))
            answer = Completion()
            await self._request(conversation, index, body, due_s, answer)
            if not self._samples[conversation.name, index].ok:
                self._why[conversation.name] = f"turn {index} of the conversation failed"
                return
            if isinstance(turn.prompt, str):
                text += turn.prompt + "".join(answer.text)
            elif answer.ids:
                ids += [*turn.prompt, *answer.ids]
            else:
                ids = []
            if due_s is not None and index + 1 < len(conversation.turns):
                due_s = self._now() + conversation.turns[index + 1].think_s

    async def _request(
        self, conversation: Conversation, index: int, body: bytes, due_s: float | None, answer: Completion
    ) -> None:
        started = time.perf_counter()
        error: str | None = None
        headers = {SESSION_HEADER: conversation.name, **self._endpoint.headers}
        try:
            async with asyncio.timeout(self._endpoint.timeout_s):
                error = await self._exchange(headers, body, answer)
        except TimeoutError:
            error = f"timeout: no end within {self._endpoint.timeout_s:g} s"
        except asyncio.CancelledError:
            error = f"deadline: cut off after {self._deadline_s:g} s"
            raise
        except (OSError, HttpError) as problem:
            error = f"connection: {problem or type(problem).__name__}"
        except Exception as problem:  # an answer in a form that nobody thought of is a failed request, not a lost run
            error = f"unreadable: {type(problem).__name__}: {problem}"
        finally:
            turn = conversation.turns[index]
            error = error or short_of(answer, turn)
            scheduled = started if due_s is None else self._begin + due_s
            self._samples[conversation.name, index] = self._sample(
                conversation, index, answer, error, scheduled, started
            )

    async def _exchange(self, headers: Mapping[str, str], body: bytes, answer: Completion) -> str | None:
        """Send one request and read its answer; return what was wrong with it."""
        connection, said = await self._pool.take(), list[bytes]()

        def take(content: bytes) -> None:
            if connection.status == HTTPStatus.OK:
                answer.feed(content, time.perf_counter())
            else:
                said.append(content)

        try:
            try:
                await connection.post(self._path, headers, body, take)
            except ClosedError:
                # A server may hang up on an idle connection at the very moment it is used again.
                if not connection.used:
                    raise
                connection.close()
                connection = await self._pool.take(new=True)
                await connection.post(self._path, headers, body, take)
        finally:
            self._pool.give(connection)
        if connection.status != HTTPStatus.OK:
            return f"HTTP {connection.status}: {b''.join(said)[:300].decode(errors='replace')}"
        return answer.error

    def _sample(
        self,
        conversation: Conversation,
        index: int,
        answer: Completion,
        error: str | None,
        scheduled: float,
        started: float,
    ) -> RequestSample:
        arrivals = answer.arrivals
        end = arrivals[-1][0] if arrivals and error is None else time.perf_counter()
        prompt = sum(turn.prompt_tokens for turn in conversation.turns[: index + 1])
        prompt += sum(self._samples[conversation.name, before].output_tokens for before in range(index))
        self._uncounted += not answer.counted
        return RequestSample(
            conversation.name,
            index,
            scheduled - self._begin,
            started - self._begin,
            arrivals[0][0] - scheduled if arrivals else None,
            answer.gaps,
            end - scheduled,
            prompt if answer.prompt_tokens is None else answer.prompt_tokens,
            answer.output_tokens,
            answer.cached_tokens,
            error,
            tuple(answer.ids) if conversation.name in self._kept and answer.ids else None,
        )

    def _all_samples(self, duration: float) -> Iterator[RequestSample]:
        for conversation in self._workload.conversations:
            why = self._why.get(conversation.name, f"the deadline of {self._deadline_s:g} s passed")
            for index in range(len(conversation.turns)):
                unsent = RequestSample(
                    conversation.name, index, duration, duration, None, (), 0.0, 0, 0, error=f"not sent: {why}"
                )
                yield self._samples.get((conversation.name, index), unsent)

    def _notes(self) -> Iterator[str]:
        if self._uncounted:
            yield (
                f"{self._uncounted} answers came in pieces whose tokens the server did not count: "
                "their gaps are between pieces"
            )

    def _first_body(self, conversation: Conversation) -> bytes:
        turn = conversation.turns[0]
        return request_body(self._endpoint, turn.prompt, turn, ids=self._wants_ids(conversation, 0))

    def _wants_ids(self, conversation: Conversation, index: int) -> bool:
        follows = index + 1 < len(conversation.turns) and not isinstance(conversation.turns[index + 1].prompt, str)
        return follows or conversation.name in self._kept

    def _now(self) -> float:
        return time.perf_counter() - self._begin
