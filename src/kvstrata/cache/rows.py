"""The rows of `cache ls` and `cache du`: what the stores' answers come to for the whole site."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kvstrata.cache.reach import Answer, Place
from kvstrata.cache.survey import Holding, Survey
from kvstrata.verify.check import Json


@dataclass(frozen=True)
class NamespaceRow:
    """One namespace on all stores that answered. Accesses are unix seconds, ages seconds; None where unknown."""

    namespace: str
    current: bool
    """Whether the inventory gives this namespace."""
    identity: Mapping[str, Any] | None
    """What it stands for, as the engine that wrote into it said; None where no store was told."""
    stores: int
    """Stores that hold some of it."""
    chunks: int
    """Index entries; a chunk whose pieces are on several stores counts on each."""
    used_bytes: int
    share: float
    """Of what all namespaces take, 0 to 1."""
    oldest_access: float | None
    newest_access: float | None
    oldest_age_s: float | None
    newest_age_s: float | None

    def as_json(self) -> dict[str, Json]:
        """The row as a flat JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class StoreRow:
    """One store. With `error` nothing but its place and capacity is known."""

    node: str
    drive: str
    store: str
    """host:port."""
    engine: str
    capacity_bytes: int
    """The most that its chunks may take together, from the inventory."""
    used_bytes: int | None
    chunks: int | None
    namespaces: Mapping[str, int] | None
    """Bytes by namespace, those without any left out."""
    files_bytes: int | None
    """What its files take; None for a store in memory."""
    files_limit_bytes: int | None
    """Where it would refuse writes; None for a store in memory or without a limit."""
    error: str | None

    def as_json(self) -> dict[str, Json]:
        """The row as a flat JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Totals:
    """The stores that answered, together."""

    stores: int
    unreachable: int
    capacity_bytes: int
    used_bytes: int
    chunks: int
    files_bytes: int | None

    def as_json(self) -> dict[str, Json]:
        """The totals as a flat JSON object."""
        return asdict(self)


def namespace_rows(answers: Sequence[Answer[Survey]], current: Iterable[str]) -> list[NamespaceRow]:
    """Return a row for each namespace, largest first; the current ones are there even when no store has any of them."""
    now = time.time()
    ours = set(current)
    surveys = [answer.value for answer in answers if answer.value is not None]
    everything = sum((survey.total for survey in surveys), Holding()).used_bytes
    rows = []
    for namespace in ours.union(*(survey.holdings for survey in surveys)):
        parts = [survey.holdings[namespace] for survey in surveys if namespace in survey.holdings]
        whole = sum(parts, Holding())
        identities = (survey.identities.get(namespace) for survey in surveys)
        rows.append(
            NamespaceRow(
                namespace=namespace,
                current=namespace in ours,
                identity=next((identity for identity in identities if identity is not None), None),
                stores=sum(part.chunks > 0 for part in parts),
                chunks=whole.chunks,
                used_bytes=whole.used_bytes,
                share=whole.used_bytes / everything if everything else 0.0,
                oldest_access=whole.oldest_access,
                newest_access=whole.newest_access,
                oldest_age_s=_age(whole.oldest_access, now),
                newest_age_s=_age(whole.newest_access, now),
            )
        )
    return sorted(rows, key=lambda row: (-row.used_bytes, row.namespace))


def store_rows(answers: Sequence[Answer[Survey]]) -> list[StoreRow]:
    """Return a row for each store, in the order of the inventory."""
    return [_store_row(answer.place, answer.value, answer.error) for answer in answers]


def totals(rows: Sequence[StoreRow]) -> Totals:
    """Add up the stores that answered."""
    good = [row for row in rows if row.error is None]
    files = [row.files_bytes for row in good if row.files_bytes is not None]
    return Totals(
        stores=len(rows),
        unreachable=len(rows) - len(good),
        capacity_bytes=sum(row.capacity_bytes for row in good),
        used_bytes=sum(row.used_bytes or 0 for row in good),
        chunks=sum(row.chunks or 0 for row in good),
        files_bytes=sum(files) if files else None,
    )


def _store_row(place: Place, survey: Survey | None, error: str | None) -> StoreRow:
    store = place.store
    return StoreRow(
        node=place.node,
        drive=store.drive,
        store=store.address,
        engine=survey.engine.value if survey else store.engine.value,
        capacity_bytes=store.capacity_bytes,
        used_bytes=survey.total.used_bytes if survey else None,
        chunks=survey.total.chunks if survey else None,
        namespaces={name: held.used_bytes for name, held in sorted(survey.holdings.items()) if held.used_bytes}
        if survey
        else None,
        files_bytes=survey.files_bytes if survey else None,
        files_limit_bytes=survey.files_limit_bytes if survey else None,
        error=error,
    )


def _age(when: float | None, now: float) -> float | None:
    # The nodes' clocks wrote it, and may be a little ahead of this one.
    return None if when is None else round(max(0.0, now - when), 1)
