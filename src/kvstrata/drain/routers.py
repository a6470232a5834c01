"""The admin endpoints of vllm-router: which replicas it chooses from.

Seen with vllm-router 0.1.17: /remove_worker takes a worker from the choice at once, lets its running requests end
(streams too), and answers 200 for one that isn't there; /add_worker waits until the worker is healthy, answers 400 for
one that is there, and its KV events are read on. Neither outlives a restart of the router.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from urllib.parse import quote

from kvstrata.verify.context import NodeContext
from kvstrata.verify.http import Service, UnansweredError

ASK_S = 10.0


class RouterHost:
    """The router on one node. Every method raises UnansweredError or UnableError when it can't be asked."""

    def __init__(self, ctx: NodeContext) -> None:
        """Nothing is contacted yet; the node must have a router."""
        router = ctx.node.router
        if router is None:
            raise ValueError(f"{ctx.node.name} has no router")
        self.name = ctx.node.name
        self.unit = router.unit
        self._service: Service | None = None
        self._open: Callable[[], Service] = partial(ctx.service, router.host, router.port, ASK_S)

    def workers(self) -> dict[str, bool]:
        """The URLs that it chooses from, and whether it takes each for healthy."""
        rows = self._ask().json("/workers").get("workers", [])
        return {str(row.get("url", "")).rstrip("/"): row.get("is_healthy") is True for row in rows}

    def remove(self, url: str) -> None:
        """Have it choose `url` no more. It is asked whether it does: its answer is the same for an unknown URL."""
        self._order("remove_worker", url)
        if url in self.workers():
            raise UnansweredError(f"the router on {self.name} still lists {url}")

    def add(self, url: str) -> None:
        """Have it choose `url` again; the engine must be healthy, or this takes as long as its start may."""
        if url not in self.workers():
            self._order("add_worker", url)

    def _order(self, verb: str, url: str) -> None:
        code, said = self._ask().order(f"/{verb}?url={quote(url, safe='')}")
        # Another drain may have been quicker.
        if code != 200 and not (verb == "add_worker" and "already exists" in said):
            raise UnansweredError(f"the router on {self.name} answered {code} to /{verb} of {url}: {said}")

    def _ask(self) -> Service:
        if self._service is None:
            self._service = self._open()
        return self._service
