"""The file of a run, read back: a report can be made of it at any time, anywhere."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving import codec
from kvstrata.bench.serving.correctness import Verdict
from kvstrata.bench.serving.record import SCHEMA, Failure, NotRun, Record, Start, answer_from_json


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file, `.json` or `.json.gz`.

    Raises:
        BenchError: it cannot be read, or holds anything else.
    """
    try:
        packed = path.read_bytes()
        form = json.loads(gzip.decompress(packed) if path.suffix == ".gz" else packed)
    except OSError as error:
        raise BenchError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise BenchError(f"{path}: no JSON: {error}") from error
    if not isinstance(form, dict):
        raise BenchError(f"{path}: {type(form).__name__}; allowed: an object, as the benchmarks write it")
    return form


def read(path: Path) -> Record:
    """Return the run of a file, `.json` or `.json.gz`.

    Raises:
        BenchError: it cannot be read, or is no such file; the message names what is wrong in it.
    """
    form = read_object(path)
    if form.get("schema") != SCHEMA:
        raise BenchError(f"{path}: schema is {form.get('schema')}; allowed: {SCHEMA}")
    try:
        return _record(form)
    except KeyError as error:
        raise BenchError(f"{path}: {error} is missing") from error
    except (TypeError, ValueError) as error:
        raise BenchError(f"{path}: {error}") from error


def _record(form: Mapping[str, Any]) -> Record:
    return Record(
        created=form["created"],
        plan=form["plan"],
        host=form["host"],
        stack=form["stack"],
        starts=[Start(**entry) for entry in form["starts"]],
        phases=[codec.phase_from_json(entry) for entry in form["phases"]],
        answers=[answer_from_json(entry) for entry in form["answers"]],
        verdicts=[_verdict(entry) for entry in form["correctness"]],
        failures=[Failure(**entry) for entry in form["failures"]],
        not_run=[NotRun(**entry) for entry in form["not_run"]],
        notes=list(form["notes"]),
        duration_s=form["duration_s"],
        complete=form["complete"],
    )


def _verdict(form: Mapping[str, Any]) -> Verdict:
    # `ok` is what the others say.
    values = {name: value for name, value in form.items() if name != "ok"}
    diverged = tuple((entry["question"], entry["position"]) for entry in form["diverged"])
    return Verdict(**{**values, "diverged": diverged, "notes": tuple(form["notes"])})
