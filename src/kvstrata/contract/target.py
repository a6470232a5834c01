"""What the contract is tested on: mocked engines on this machine, or a site as it is deployed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from kvstrata.contract.arms import Arm
from kvstrata.contract.client import Front
from kvstrata.contract.residency import Batch
from kvstrata.contract.waiting import Meter


@dataclass(frozen=True)
class Worker:
    """An engine with its KV cache."""

    name: str
    url: str
    """Of its own OpenAI-compatible API; in profile dynamo of a deployed site, of its status server."""
    events: str
    """The ZMQ endpoint of its KV events."""


class Target(Protocol):
    """See LocalTarget and SiteTarget."""

    block_size: int
    """Of the KV cache, in tokens."""
    kv_tokens: int
    """That fit into one worker."""

    @property
    def workers(self) -> Sequence[Worker]:
        """Those that are there."""

    def refuses(self, arm: Arm) -> str | None:
        """Return why an arm cannot be tried here, None if it can."""

    def route(self, arm: Arm) -> AbstractContextManager[Front]:
        """Have the arm's router serve all workers; yield its front once it answers."""

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of texts, as the engines see them."""

    def events(self) -> list[Batch] | None:
        """Return all of the workers' KV events until now, by time; None if nobody listens."""

    def meter(self) -> Meter | None:
        """Return what counts the use of this machine by all that runs on it for the target now; None: nothing does."""

    def describe(self) -> Mapping[str, Any]:
        """Return what it is, for the report."""
