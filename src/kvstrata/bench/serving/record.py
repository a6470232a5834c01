"""What a run of `bench serve` has found so far, and the journal that keeps it while it runs.

The journal is a file of one JSON object a line: `{"plan": ...}` first, then each start, phase, answer and failure as it
is known. A run that is killed loses what it was at, and nothing before that; `--resume` goes on from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving import codec
from kvstrata.bench.serving.correctness import Answer, Verdict
from kvstrata.bench.serving.model import Json, Phase

SCHEMA = "kvstrata.bench.serve/1"


@dataclass(frozen=True)
class Start:
    """A configuration was started: no phase contains these seconds."""

    configuration: str
    round: int
    seconds: float
    options: Mapping[str, Json]
    """Exactly what each of its parts was given."""


@dataclass(frozen=True)
class Failure:
    """A configuration could not be measured in a round, or not all of it."""

    configuration: str
    round: int
    error: str


@dataclass(frozen=True)
class NotRun:
    """A configuration that cannot run here at all, and why."""

    configuration: str
    reason: str


@dataclass
class Record:
    """All of a run. `plan` is what was asked for, as JSON; two runs with equal plans may be joined."""

    created: str
    plan: dict[str, Json]
    host: dict[str, Json] = field(default_factory=dict)
    stack: dict[str, Json] = field(default_factory=dict)
    starts: list[Start] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    not_run: list[NotRun] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    duration_s: float = 0.0
    complete: bool = False

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    def done(self, configuration: str, turn: int, workload: str, passes: Sequence[str]) -> bool:
        """Whether every pass of a workload was measured in a round."""
        found = {
            phase.pass_
            for phase in self.phases
            if (phase.configuration, phase.round, phase.workload) == (configuration, turn, workload) and not phase.error
        }
        return found.issuperset(passes)

    def forget(self, configuration: str, turn: int, workload: str) -> None:
        """Drop the phases of a workload in a round, to measure all of them again."""
        self.phases = [
            phase
            for phase in self.phases
            if (phase.configuration, phase.round, phase.workload) != (configuration, turn, workload)
        ]


def to_json(record: Record) -> dict[str, Json]:
    """Return everything, as the file's text holds it."""
    return {
        "schema": SCHEMA,
        "created": record.created,
        "duration_s": record.duration_s,
        "complete": record.complete,
        "plan": record.plan,
        "host": record.host,
        "stack": record.stack,
        "starts": [asdict(start) for start in record.starts],
        "not_run": [asdict(entry) for entry in record.not_run],
        "failures": [asdict(failure) for failure in record.failures],
        "correctness": [verdict.to_json() for verdict in record.verdicts],
        "answers": [_answer_to_json(answer) for answer in record.answers],
        "notes": list(record.notes),
        "phases": [codec.phase_to_json(phase) for phase in record.phases],
    }


class Journal:
    """Writes a record's parts as they come."""

    def __init__(self, path: Path) -> None:
        """Write to `path`."""
        self._path = path

    def begin(self, record: Record) -> None:
        """Begin a new file with what is known so far, in place of an older one."""
        head = {"schema": SCHEMA, "created": record.created, "plan": record.plan}
        lines: list[Mapping[str, Any]] = [head]
        lines += [{"start": asdict(start)} for start in record.starts]
        lines += [{"phase": codec.phase_to_json(phase)} for phase in record.phases]
        lines += [{"answer": _answer_to_json(answer)} for answer in record.answers]
        draft = self._path.with_name(self._path.name + ".new")
        draft.write_text("".join(json.dumps(line) + "\n" for line in lines))
        draft.replace(self._path)

    def start(self, start: Start) -> None:
        """Keep a start."""
        self._add({"start": asdict(start)})

    def phase(self, phase: Phase) -> None:
        """Keep a phase."""
        self._add({"phase": codec.phase_to_json(phase)})

    def answer(self, answer: Answer) -> None:
        """Keep an answer of the correctness sample."""
        self._add({"answer": _answer_to_json(answer)})

    def failure(self, failure: Failure) -> None:
        """Keep a failure; going on from the journal tries again."""
        self._add({"failure": asdict(failure)})

    def _add(self, line: Mapping[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def read_journal(path: Path, plan: Mapping[str, Json]) -> Record:
    """Return what a journal holds of a run with that very plan.

    Raises:
        BenchError: it is not there, is none, or is of another plan; the first difference is named.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise BenchError(f"--resume: {path} cannot be read: {error}") from error
    try:
        head = json.loads(lines[0])
        kept, created = head["plan"], head["created"]
        if head["schema"] != SCHEMA:
            raise BenchError(f"--resume: {path} is {head['schema']}; allowed: {SCHEMA}")
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise BenchError(f"--resume: {path} is no journal of bench serve: {error!r}") from error
    # As JSON writes it: a tuple comes back as a list.
    if differing := _differing(kept, json.loads(json.dumps(plan))):
        raise BenchError(f"--resume: {path} is of another run: {differing}")
    record = Record(created, dict(plan))
    for number, line in enumerate(lines[1:], 2):
        try:
            _take(record, json.loads(line))
        except (KeyError, TypeError, ValueError) as error:
            # The line that was being written when the run was killed.
            if number < len(lines):
                raise BenchError(f"--resume: {path}, line {number}: {error!r}") from error
    return record


def _take(record: Record, line: Mapping[str, Any]) -> None:
    if "start" in line:
        record.starts.append(Start(**line["start"]))
    elif "phase" in line:
        record.phases.append(codec.phase_from_json(line["phase"]))
    elif "answer" in line:
        record.answers.append(answer_from_json(line["answer"]))


def _differing(kept: Any, given: Any, where: str = "") -> str | None:
    if isinstance(kept, dict) and isinstance(given, dict):
        for name in sorted(kept.keys() | given.keys()):
            if found := _differing(kept.get(name), given.get(name), f"{where}.{name}" if where else name):
                return found
        return None
    return None if kept == given else f"{where} was {kept!r} and is {given!r}"


def _answer_to_json(answer: Answer) -> dict[str, Json]:
    ids: Json = codec.encode_ids(answer.ids)
    return {**asdict(replace(answer, ids=())), "ids": ids, "logprobs": list(answer.logprobs)}


def answer_from_json(form: Mapping[str, Any]) -> Answer:
    """Return the answer of a JSON form."""
    return Answer(**{**form, "ids": codec.decode_ids(form["ids"]), "logprobs": tuple(form["logprobs"])})
