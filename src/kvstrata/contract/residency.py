"""Which worker holds which prefix at which moment, told from the workers' KV events alone.

A worker names its blocks by hashes of its own. What is the same in two workers is the content: the tokens of a block
and of all blocks before it. So every block is filed under its parent's content and its tokens, and a prompt is looked
up by its tokens.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = 0
# vLLM's and the mocker's word for the tier that prefix hits are free of charge from; None where one does not say.
_DEVICE = ("GPU", "CPU", None)


@dataclass(frozen=True)
class Batch:
    """Events of one worker, as kvstrata.contract.recorder wrote them; `at` on the machine's monotonic clock."""

    at: float
    worker: str
    events: Sequence[Mapping[str, Any]]
    sequence: int | None = None


def read_batches(file: Path, offset: int = 0) -> tuple[list[Batch], int]:
    """Return what a recorder wrote from an offset on, and the offset after it; a line that is not whole waits."""
    found = []
    with file.open("rb") as lines:
        lines.seek(offset)
        for line in lines:
            if not line.endswith(b"\n"):
                break
            offset += len(line)
            said = json.loads(line)
            if "worker" in said:
                found.append(Batch(said["at"], said["worker"], said["events"], said["seq"]))
    return found, offset


def cleared(at: float, worker: str) -> Batch:
    """Return what a worker cannot tell itself: it was killed and holds nothing."""
    return Batch(at, worker, [{"type": "AllBlocksCleared"}])


def lost(batches: Iterable[Batch]) -> int:
    """Return how many batches are missing by their numbers. A worker that starts anew counts from the beginning."""
    last: dict[str, int] = {}
    missing = 0
    for batch in batches:
        if batch.sequence is None:
            continue
        before = last.get(batch.worker)
        if before is not None and batch.sequence > before + 1:
            missing += batch.sequence - before - 1
        last[batch.worker] = batch.sequence
    return missing


class Residency:
    """What every worker holds now. Blocks are numbers, the same for the same content in every worker."""

    def __init__(self, block_size: int) -> None:
        """Begin with nothing; `block_size` in tokens."""
        self._block_size = block_size
        self._known: dict[tuple[int, tuple[int, ...]], int] = {}
        self._named: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._held: defaultdict[str, set[int]] = defaultdict(set)
        self.orphans = 0
        """Blocks whose parent was never told of: events were missed, and where these blocks are is not known."""

    def apply(self, batch: Batch) -> list[int]:
        """Take what a worker said; return the blocks that it stored."""
        stored: list[int] = []
        for event in batch.events:
            if event["type"] == "AllBlocksCleared":
                self._named.pop(batch.worker, None)
                self._held.pop(batch.worker, None)
            elif event.get("medium") not in _DEVICE:
                continue
            elif event["type"] == "BlockStored":
                stored += self._stored(batch.worker, event)
            elif event["type"] == "BlockRemoved":
                self._removed(batch.worker, event)
        return stored

    def blocks(self, ids: Sequence[int]) -> tuple[int | None, ...]:
        """Return the whole blocks of a prompt; from the first that nobody ever held, None."""
        found: list[int | None] = []
        parent: int | None = ROOT
        for begin in range(0, len(ids) - self._block_size + 1, self._block_size):
            if parent is not None:
                parent = self._known.get((parent, tuple(ids[begin : begin + self._block_size])))
            found.append(parent)
        return tuple(found)

    def held(self, worker: str, blocks: Sequence[int | None]) -> int:
        """Return how many of the blocks, from the first on without a gap, a worker holds."""
        holds = self._held.get(worker, set())
        return next((index for index, block in enumerate(blocks) if block not in holds), len(blocks))

    def size(self, worker: str) -> int:
        """Return how many blocks a worker holds."""
        return len(self._held.get(worker, ()))

    def _stored(self, worker: str, event: Mapping[str, Any]) -> list[int]:
        named, size = self._named[worker], event["block_size"]
        if size != self._block_size:
            raise ValueError(f"{worker} tells blocks of {size} tokens; expected {self._block_size}")
        told = event["parent_block_hash"]
        parent = ROOT if told is None else named.get(told)
        found = []
        for index, name in enumerate(event["block_hashes"]):
            if parent is None:
                self.orphans += 1
                continue
            key = (parent, tuple(event["token_ids"][index * size : (index + 1) * size]))
            parent = self._known.setdefault(key, len(self._known) + 1)
            named[name] = parent
            self._held[worker].add(parent)
            found.append(parent)
        return found

    def _removed(self, worker: str, event: Mapping[str, Any]) -> None:
        # The name stays known: a block that is stored later may have it as its parent.
        for name in event["block_hashes"]:
            if (block := self._named[worker].get(name)) is not None:
                self._held[worker].discard(block)


def moments(batches: Sequence[Batch], times: Sequence[float], residency: Residency) -> Iterator[int]:
    """Yield the index of each of `times`, in their order, when `residency` is what it was at that time."""
    waiting = iter(batches)
    batch = next(waiting, None)
    for index in sorted(range(len(times)), key=times.__getitem__):
        while batch is not None and batch.at <= times[index]:
            residency.apply(batch)
            batch = next(waiting, None)
        yield index
