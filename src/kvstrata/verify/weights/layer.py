"""Look at every node's files, at every engine's answers and at the record; keep the record of a good run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from kvstrata.cluster import Engine
from kvstrata.verify.check import Check, Json, Layer, NotCheckedError, Question, Status, UnableError, UnmetError
from kvstrata.verify.context import NodeContext, SiteContext
from kvstrata.verify.layers.engine import PROBE_PROMPT
from kvstrata.verify.weights import files, judge, record
from kvstrata.verify.weights.files import ModelFiles
from kvstrata.verify.weights.record import Known

# Nodes that are asked at the same time.
AT_ONCE = 32
PROMPT_DIGEST = hashlib.sha256(PROBE_PROMPT.encode()).hexdigest()

type Answers = tuple[float, ...]


def checks(site: SiteContext) -> Iterator[Check]:
    """One row for each node with an engine, and one more where a good state could not be kept."""
    contexts = [ctx for ctx in site.contexts.values() if ctx.node.engines]
    if not contexts:
        return
    site.say(f"comparing the model's files on {len(contexts)} nodes")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        read = dict(zip([ctx.node.name for ctx in contexts], pool.map(_read, contexts), strict=True))
    compared = _Compared(site, read, _answers(site.earlier), _known(site))
    rows = [compared.check(ctx) for ctx in contexts]
    yield from rows
    yield from _keep(compared, rows)


@dataclass(frozen=True)
class _Compared:
    """What was found: by node its files, or why there are none; by engine its answers; the record."""

    site: SiteContext
    read: Mapping[str, ModelFiles | UnmetError | UnableError]
    answers: Mapping[str, Answers]
    known: Known | None

    @property
    def files(self) -> dict[str, ModelFiles]:
        """Of the nodes that could say."""
        return {name: found for name, found in self.read.items() if isinstance(found, ModelFiles)}

    def check(self, ctx: NodeContext) -> Check:
        """The row of one node."""
        model = self.site.cluster.model
        question = ctx.question(
            "engine.weights",
            f"weights of {model.name}",
            f"those recorded for revision {model.revision or 'of no name'}; the same on every node, in every engine",
            ctx.command(f"ls -l {model.path}"),
        )
        data: dict[str, Json] = {}
        return question.ask(lambda: self._judged(ctx, data), data)

    def _judged(self, ctx: NodeContext, data: dict[str, Json]) -> str:
        name, model = ctx.node.name, self.site.cluster.model
        mine = self.read[name]
        if not isinstance(mine, ModelFiles):
            raise mine
        data |= {"digest": mine.digest, "files": len(mine.files), "bytes": mine.total_bytes}
        data["recorded_at"] = None if self.known is None else self.known.recorded_at
        most_apart = judge.tolerance(model.dtype, model.kv_dtype)
        judgements = [partial(judge.files, name, self.files, self.known)]
        silent = []
        for engine in ctx.node.engines:
            key = _name(name, engine)
            if key in self.answers:
                judgements.append(partial(judge.answers, key, self.answers, self.known, most_apart))
            else:
                silent.append(engine.unit)
        seen, wrong = [], []
        for judgement in judgements:
            try:
                seen.append(judgement())
            except UnmetError as unmet:
                wrong.append(str(unmet))
        if wrong:
            raise UnmetError("; ".join(wrong + seen))
        if silent:
            not_proven = f"what {', '.join(silent)} serves is not proven: it gave no log probabilities"
            raise NotCheckedError("; ".join([not_proven, *seen]))
        return "; ".join(seen)


def _read(ctx: NodeContext) -> ModelFiles | UnmetError | UnableError:
    try:
        return files.read(ctx.shell, ctx.cluster.model.path)
    except (UnmetError, UnableError) as error:
        return error


def _name(node: str, engine: Engine) -> str:
    return f"{node} {engine.unit} {engine.host}:{engine.port}"


def _answers(earlier: Sequence[Check]) -> dict[str, Answers]:
    """By engine what engine.logprobs left."""
    found = {}
    for check in earlier:
        values = check.data.get("prompt_logprobs")
        if check.id == "engine.logprobs" and check.status is Status.PASS and isinstance(values, list):
            engine = " ".join(check.what.split()[:2])
            found[f"{check.host} {engine}"] = tuple(float(value) for value in values if isinstance(value, float | int))
    return found


def _known(site: SiteContext) -> Known | None:
    model = site.cluster.model
    known = record.find(record.load(site.cluster.verify.state_dir), model.name, model.revision)
    if known is not None and known.prompt != PROMPT_DIGEST:
        # Answers to another prompt tell nothing; the files still do.
        return replace(known, answers=None)
    return known


def _keep(compared: _Compared, rows: Sequence[Check]) -> Iterator[Check]:
    """Record a model that has no record, or none of its answers, in a run whose engines are all well."""
    site, known, model = compared.site, compared.known, compared.site.cluster.model
    engines = [check for check in (*site.earlier, *rows) if check.layer is Layer.ENGINE]
    if not all(check.status is Status.PASS for check in engines):
        return
    if known is not None and known.answers is not None:
        return
    first_files, first_answers = next(iter(compared.files.values())), next(iter(compared.answers.values()), None)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    new = Known(model.name, model.revision, now, first_files, PROMPT_DIGEST, first_answers)
    folder = site.cluster.verify.state_dir
    others = [its for its in record.load(folder) if (its.name, its.revision) != (new.name, new.revision)]
    try:
        record.save(folder, [*others, new])
    except OSError as error:
        expected, why = "kept for the next run", f"{folder}: {error.strerror}; the next run has nothing to compare with"
        question = Question("engine.record", Layer.ENGINE, site.cluster.site, "record of the weights", expected, "df")
        yield question.skip(why)
