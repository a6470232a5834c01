"""What changed between two documents of verify: a pure function of the two.

What only one of the runs looked at (--only, --limit, a node out of reach, a proof not run) is no change. A check that
failed and was then not looked at is one: a reader would take its absence for good news.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from kvstrata.verify.document import CheckRow, Document, Json, StatusName, stable
from kvstrata.verify.scope import Scope, is_remark

# One measurement each, and nodes are busy: less than this is noise.
TOLERANCE = 0.25
# A prompt longer or shorter by more than this share is another measurement.
_SAME_PROMPT = 0.05

type Key = tuple[str, str, str, int]


class Kind(StrEnum):
    """How a check changed, the worst first."""

    FAILS = "newly fails"
    STILL = "still bad, in another way"
    UNCHECKED = "no longer checked"
    VANISHED = "vanished"
    PASSES = "newly passes"
    APPEARED = "appeared"


@dataclass(frozen=True)
class CheckChange:
    """A check of which the two runs differ. A status of None is a check that was not there."""

    kind: Kind
    id: str
    host: str
    what: str
    before: StatusName | None
    after: StatusName | None
    seen: str


@dataclass(frozen=True)
class TimeChange:
    """A time to first token that moved by more than the tolerance; times in seconds, `ratio` is after to before."""

    step: str
    node: str
    before_s: float
    after_s: float
    ratio: float


@dataclass(frozen=True)
class VersionChange:
    """A version that is another one. `of` is what was asked; None is what was not said."""

    host: str
    of: str
    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Differences:
    """All that changed. `before` and `after` are when the runs started."""

    before: str | None
    after: str | None
    tolerance: float
    checks: tuple[CheckChange, ...]
    times: tuple[TimeChange, ...]
    versions: tuple[VersionChange, ...]
    nodes_added: tuple[str, ...]
    nodes_gone: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def any(self) -> bool:
        """Whether anything changed."""
        return bool(self.checks or self.times or self.versions or self.nodes_added or self.nodes_gone)

    @property
    def worse(self) -> bool:
        """Whether a check newly fails or a first token takes longer than the tolerance allows."""
        return any(change.kind is Kind.FAILS for change in self.checks) or any(
            time.after_s > time.before_s for time in self.times
        )

    def as_json(self) -> dict[str, Json]:
        """The differences as a JSON object."""
        return {"worse": self.worse, **asdict(self)}


def compare(before: Document, after: Document, tolerance: float = TOLERANCE) -> Differences:
    """Return what changed. `tolerance` is the share by which a time to first token may differ, either way."""
    times, other_prompts = _times(before, after, tolerance)
    return Differences(
        before=before["started_at"],
        after=after["started_at"],
        tolerance=tolerance,
        checks=tuple(sorted(_checks(before, after), key=lambda change: list(Kind).index(change.kind))),
        times=tuple(times),
        versions=tuple(_versions(before, after)),
        nodes_added=tuple(name for name in after["nodes"] if name not in before["nodes"]),
        nodes_gone=tuple(name for name in before["nodes"] if name not in after["nodes"]),
        remarks=(*_not_compared(before, after), *other_prompts),
    )


def _keyed(document: Document) -> dict[Key, CheckRow]:
    """The checks under what makes each the same in two runs; the number tells apart those that are asked twice."""
    seed = document["tiers"]["seed"] if document["tiers"] else None
    seen: Counter[tuple[str, str, str]] = Counter()
    keyed: dict[Key, CheckRow] = {}
    for check in document["checks"]:
        name = (check["id"], check["host"], stable(check["what"], seed))
        keyed[(*name, seen[name])] = check
        seen[name] += 1
    return keyed


def _checks(before: Document, after: Document) -> Iterator[CheckChange]:
    old, new = _keyed(before), _keyed(after)
    looked_before, looked_after = Scope.of(before), Scope.of(after)
    for key in dict.fromkeys([*old, *new]):
        was, now = old.get(key), new.get(key)
        kind: Kind | None = None
        if was is not None and now is not None:
            kind = _turn(was["status"], now["status"])
        elif now is not None and not is_remark(now):
            if _bad(now["status"]):
                kind = Kind.FAILS
            elif looked_before.covers(now):
                kind = Kind.APPEARED
        elif was is not None and now is None and not is_remark(was):
            if looked_after.covers(was):
                kind = Kind.VANISHED
            elif _bad(was["status"]):
                kind = Kind.UNCHECKED
        if kind is not None:
            told = new.get(key) or old[key]
            yield CheckChange(
                kind=kind,
                id=told["id"],
                host=told["host"],
                what=key[2],
                before=was and was["status"],
                after=now and now["status"],
                seen=told["seen"],
            )


def _turn(was: StatusName, now: StatusName) -> Kind | None:
    if was == now:
        return None
    if _bad(now):
        return Kind.STILL if _bad(was) else Kind.FAILS
    return Kind.PASSES if now == "pass" else Kind.UNCHECKED


def _bad(status: StatusName) -> bool:
    return status in ("fail", "error")


def _times(before: Document, after: Document, tolerance: float) -> tuple[list[TimeChange], list[str]]:
    """The times that moved, and why some can't be compared. The same recorded proof has nothing to compare."""
    old, new = before["tiers"], after["tiers"]
    if old is None or new is None or (old["proven_at"] is not None and old["proven_at"] == new["proven_at"]):
        return [], []
    changes, remarks = [], []
    earlier = {step["name"]: step for step in old["steps"]}
    for step in new["steps"]:
        was = earlier.get(step["name"])
        if was is None or was["ttft_s"] <= 0 or step["ttft_s"] <= 0:
            continue
        lengths = (was["prompt_tokens"], step["prompt_tokens"])
        if max(lengths) - min(lengths) > _SAME_PROMPT * max(lengths):
            remarks.append(
                f"time to first token, {step['name']}: not compared, the prompt had {was['prompt_tokens']} tokens "
                f"and now {step['prompt_tokens']}"
            )
            continue
        slow, fast = max(step["ttft_s"], was["ttft_s"]), min(step["ttft_s"], was["ttft_s"])
        if slow / fast > 1 + tolerance:
            node = step["node"] if step["node"] == was["node"] else f"{was['node']}, now {step['node']}"
            changes.append(
                TimeChange(step["name"], node, was["ttft_s"], step["ttft_s"], step["ttft_s"] / was["ttft_s"])
            )
    return changes, remarks


def _versions(before: Document, after: Document) -> Iterator[VersionChange]:
    old, new = before["versions"], after["versions"]
    if old["kvstrata"] != new["kvstrata"]:
        yield VersionChange("controller", "kvstrata", "version", old["kvstrata"], new["kvstrata"])
    if old["python"] != new["python"]:
        yield VersionChange("controller", "python", "version", old["python"], new["python"])
    earlier = {(found.get("host"), found.get("of")): found for found in old["found"]}
    for found in new["found"]:
        was = earlier.get((found.get("host"), found.get("of")))
        # What is new altogether, or was not asked, is no version that changed.
        for name in dict.fromkeys([*was, *found]) if was is not None else ():
            if was is not None and was.get(name) != found.get(name):
                yield VersionChange(
                    str(found["host"]), str(found["of"]), name, _said(was.get(name)), _said(found.get(name))
                )


def _said(value: Json) -> str | None:
    return None if value is None else str(value)


def _not_compared(before: Document, after: Document) -> list[str]:
    """What the later run says it did not look at, and the earlier one did; then the other way round."""
    return [
        *(f"only before: {text}" for text in _left_out(after, before)),
        *(f"only now: {text}" for text in _left_out(before, after)),
    ]


def _left_out(by: Document, other: Document) -> Sequence[str]:
    said = {(check["id"], check["host"]) for check in other["checks"] if is_remark(check) and check["status"] == "skip"}
    # That a node was not reached is said once, by its host.ssh.
    silent = Scope.of(by).unreached
    return [
        f"{check['host']}: {check['what']}: {check['seen']}"
        for check in by["checks"]
        if is_remark(check) and check["status"] == "skip" and (check["id"], check["host"]) not in said
        if check["host"] not in silent
    ]
