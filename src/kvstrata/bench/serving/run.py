"""Rounds over configurations: each started with empty tiers, loaded cold, loaded again warm, counted, and stopped.

The order of configurations is rotated from round to round, so that a machine that gets slower (or busier) meets all of
them. A configuration that fails is recorded, and the run goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from kvstrata.bench.ending import end_if_told
from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving import correctness, counters, judging
from kvstrata.bench.serving.configurations import REFERENCE, Configuration
from kvstrata.bench.serving.model import Driver, Json, Pass, Phase, Workload
from kvstrata.bench.serving.record import Failure, Journal, NotRun, Record, Start
from kvstrata.bench.serving.stack import Running, Stack
from kvstrata.bench.serving.workloads import working_set_tokens

Progress = Callable[[str], None]
COLD: Pass = "cold"
WARM: Pass = "warm"
PASSES: tuple[Pass, ...] = (COLD, WARM)


@dataclass(frozen=True)
class Plan:
    """What to measure, and how much time it may take."""

    configurations: tuple[Configuration, ...]
    workloads: tuple[Workload, ...]
    driver: Driver
    rounds: int = 3
    passes: tuple[Pass, ...] = PASSES
    seed: int = 1
    minutes: float = 60.0
    """No configuration is started after these, and no phase goes on for longer than what is left of them."""
    phase_s: float = 1800.0
    settle_s: float = 120.0
    questions: int = 8
    """Prompts of the correctness sample; 0 leaves it out."""
    question_tokens: int = 32
    dtype: str = "auto"
    from_the_drive: bool = True
    """Before a warm pass, take what the stores hold out of the page cache."""
    by_round: tuple[tuple[Workload, ...], ...] = ()
    """For each round the same workloads with other prompts, where tiers cannot be emptied; else `workloads` for all."""

    def workloads_in(self, turn: int) -> tuple[Workload, ...]:
        """Return the workloads of a round, from 1."""
        return self.by_round[turn - 1] if self.by_round else self.workloads

    def to_json(self) -> dict[str, Json]:
        """Return what makes two runs comparable; not how long they may take."""
        return {
            "configurations": [configuration.to_json() for configuration in self.configurations],
            "workloads": [
                {
                    "name": workload.name,
                    "seed": workload.seed,
                    "conversations": len(workload.conversations),
                    "requests": workload.requests,
                    "active": workload.active,
                    "working_set": asdict(working_set_tokens(workload)),
                    "parameters": dict(workload.parameters),
                }
                for workload in self.workloads
            ],
            "driver": self.driver.name,
            "rounds": self.rounds,
            "passes": list(self.passes),
            "seed": self.seed,
            "questions": self.questions,
            "question_tokens": self.question_tokens,
            "dtype": self.dtype,
            "from_the_drive": self.from_the_drive,
            "seeds": [[workload.seed for workload in row] for row in self.by_round],
        }


def order(configurations: Sequence[Configuration], turn: int) -> list[Configuration]:
    """Return the configurations in the order of a round, from 1: each is first once in as many rounds."""
    shift = (turn - 1) % len(configurations)
    return [*configurations[shift:], *configurations[:shift]]


class Runner:
    """Measures a plan on a stack into a record."""

    def __init__(
        self,
        plan: Plan,
        stack: Stack,
        record: Record,
        journal: Journal,
        say: Progress,
        wait_for_quiet: Callable[[], None] = lambda: None,
        cores: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Go on from what `record` holds. `wait_for_quiet` is called before each start, when nothing of ours runs."""
        self._plan, self._stack, self._record, self._journal, self._say = plan, stack, record, journal, say
        self._quiet, self._cores, self._clock = wait_for_quiet, cores, clock
        self._over = self._took = 0.0

    def run(self) -> None:
        """Measure everything that is missing; what cannot be measured is in the record."""
        plan, record = self._plan, self._record
        began = self._clock()
        self._over = began + plan.minutes * 60
        possible = self._possible()
        try:
            for turn in range(1, plan.rounds + 1):
                for configuration in order(possible, turn) if possible else ():
                    if not self._missing(configuration, turn):
                        self._say(f"round {turn}: {configuration.name}: measured already")
                        continue
                    self._quiet()
                    end_if_told()
                    if self._clock() + self._longest_s() > self._over:
                        record.note(f"CUT SHORT after {plan.minutes:g} minutes, in round {turn}")
                        return
                    at = self._clock()
                    self._one(configuration, turn)
                    self._took = max(self._took, self._clock() - at)
        finally:
            self._stack.stop()
            record.verdicts = self._verdicts(possible)
            record.duration_s += self._clock() - began
            complete = all(not self._missing(c, turn) for c in possible for turn in range(1, plan.rounds + 1))
            record.complete = bool(possible) and complete and not record.failures

    def _longest_s(self) -> float:
        """Return what the longest configuration took, now or in the run that this one goes on from.

        With less time left, the next would only fail.
        """
        loads: dict[tuple[str, int], float] = {}
        for phase in self._record.phases:
            key = phase.configuration, phase.round
            loads[key] = loads.get(key, 0.0) + phase.duration_s
        starts = self._record.starts
        return max((self._took, *(one.seconds + loads.get((one.configuration, one.round), 0.0) for one in starts)))

    def _possible(self) -> list[Configuration]:
        found = []
        for configuration in self._plan.configurations:
            if reason := self._stack.refuses(configuration):
                self._record.not_run.append(NotRun(configuration.name, reason))
                self._say(f"NOT RUN: {configuration.name}: {reason}")
            else:
                found.append(configuration)
        return found

    def _missing(self, configuration: Configuration, turn: int) -> list[Workload]:
        return [
            workload
            for workload in self._plan.workloads_in(turn)
            if not self._record.done(configuration.name, turn, workload.name, self._plan.passes)
        ]

    def _one(self, configuration: Configuration, turn: int) -> None:
        label = f"round {turn}: {configuration.name}"
        try:
            running = self._stack.start(configuration)
            start = Start(configuration.name, turn, running.start_s, running.options)
            self._record.starts.append(start)
            self._journal.start(start)
            for note in running.notes:
                self._record.note(note)
            self._say(f"{label}: healthy after {running.start_s:.0f} s")
            for number, workload in enumerate(self._missing(configuration, turn)):
                self._record.forget(configuration.name, turn, workload.name)
                if number:
                    running = self._stack.clear()
                for pass_ in self._plan.passes:
                    self._phase(running, workload, turn, pass_, label)
            self._ask(running, label)
        except BenchError as error:
            self._fail(configuration.name, turn, str(error))
        finally:
            self._stack.stop()

    def _fail(self, configuration: str, turn: int, error: str) -> None:
        failure = Failure(configuration, turn, error)
        self._record.failures.append(failure)
        self._journal.failure(failure)
        self._say(f"round {turn}: {configuration}: FAILED: {error}")

    def _phase(self, running: Running, workload: Workload, turn: int, pass_: Pass, label: str) -> None:
        plan, name = self._plan, running.configuration.name
        notes: list[str | None] = [*running.notes]
        if pass_ == WARM:
            notes.append(self._stack.settle(plan.settle_s))
            if plan.from_the_drive and running.configuration.stores != "none":
                notes.append(self._stack.forget_memory())
        end_if_told()
        deadline_s = min(plan.phase_s, self._over - self._clock())
        if deadline_s <= 0:
            raise BenchError(f"no time was left for {workload.name}, {pass_}: --minutes {plan.minutes:g}")
        before = self._stack.begin()
        started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        load = plan.driver.run(running.endpoint, workload, frozenset(), deadline_s)
        after = self._stack.end()
        if dead := self._stack.alive():
            raise BenchError(f"during {workload.name}, {pass_}: {dead}")
        tiers = counters.tier_tokens(before, after, lmcache="lmcache" in after)
        notes += [
            *load.notes,
            counters.disagreement(tiers, load.samples),
            counters.preemptions(before, after),
            judging.saturated(load.client),
            judging.shared(before, after, load.duration_s, self._cores),
        ]
        phase = Phase(
            configuration=name,
            round=turn,
            workload=workload.name,
            pass_=pass_,
            started_at=started_at,
            duration_s=load.duration_s,
            samples=load.samples,
            before=before,
            after=after,
            tiers=tiers,
            driver=load.driver,
            client=load.client,
            notes=tuple(dict.fromkeys(note for note in notes if note)),
            error=judging.failed(load.samples, deadline_s),
        )
        self._record.phases.append(phase)
        self._journal.phase(phase)
        self._say(f"{label}: {workload.name} {pass_}: {judging.summary(phase)}")
        if phase.error:
            self._fail(name, turn, f"{workload.name}, {pass_}: {phase.error}")
            if judging.useless(phase):
                raise BenchError(f"nothing more of this configuration is measured in round {turn}")

    def _ask(self, running: Running, label: str) -> None:
        """Ask the correctness sample, unless an earlier round did."""
        plan, name = self._plan, running.configuration.name
        asked = correctness.questions(plan.workloads[-1], plan.questions)
        if not asked or not running.direct or any(answer.configuration == name for answer in self._record.answers):
            return
        self._stack.settle(plan.settle_s)
        # The reference answers twice: what differs then is not a cache's doing.
        for _ in range(2 if name == REFERENCE else 1):
            answers = correctness.ask(
                running.endpoint, running.direct[0], name, asked, plan.question_tokens, self._stack.clear_engines
            )
            for answer in answers:
                self._record.answers.append(answer)
                self._journal.answer(answer)
        cached = sum(answer.cached_tokens or 0 for answer in answers)
        self._say(f"{label}: {len(answers)} prompts asked alone, {cached} of their tokens from a cache")

    def _verdicts(self, possible: Sequence[Configuration]) -> list[correctness.Verdict]:
        plan, answers = self._plan, self._record.answers
        if not plan.questions:
            why = "a deployed engine is not emptied" if plan.by_round else "--questions 0"
            self._record.note(f"NOT CHECKED: that outputs are those of the uncached run ({why})")
            return []
        reference = [answer for answer in answers if answer.configuration == REFERENCE]
        half = len(reference) // 2
        if not half:
            self._record.note(f"NOT CHECKED: that outputs are those of the uncached run, for `{REFERENCE}` was not run")
            return []
        rows = [reference[:half], reference[half:]]
        return [
            correctness.judge(c.name, mine, rows, plan.dtype)
            for c in possible
            if c.name != REFERENCE and (mine := [answer for answer in answers if answer.configuration == c.name])
        ]
