"""The site's endpoint: passes each completion to one engine, a conversation to the one where it was before."""

from __future__ import annotations

import itertools
import json
import zlib
from collections import Counter
from collections.abc import Mapping

from tests.verify.simulated.state import FakeNode, FakeSite
from tests.verify.simulated.vllm import FakeEngine
from tests.verify.simulated.web import Answer, Request, Route, Status

# By its first characters a prompt is known again.
PREFIX_CHARS = 128


class FakeRouter:
    """The router in front of all engines, by their URLs."""

    def __init__(self, site: FakeSite, engines: Mapping[str, FakeEngine], node: FakeNode) -> None:
        self._site, self._engines = site, engines
        if node.lost_worker:
            self._engines = dict(list(engines.items())[:-1])
        self._turns = itertools.count()
        self._chosen: Counter[str] = Counter()
        self.down = False

    def routes(self) -> dict[str, Route]:
        """Its HTTP API."""
        return {
            "/health": lambda _: "",
            "/workers": lambda _: {
                "workers": [{"url": url, "is_healthy": not engine.down} for url, engine in self._engines.items()]
            },
            "/v1/models": self._first,
            "/v1/completions": self._completions,
            "/v1/chat/completions": self._chat,
        }

    def figures(self) -> dict[str, Route]:
        """What it has for Prometheus, on a port of its own."""
        return {"/metrics": self._metrics}

    def _metrics(self, _: Request) -> Answer:
        lines = [f'vllm_router_requests_total{{route="/v1/completions"}} {self._chosen.total()}']
        lines += [
            f'vllm_router_policy_decisions_total{{policy="{self._site.policy}",worker="{url}"}} {count}'
            for url, count in self._chosen.items()
        ]
        return "\n".join(lines) + "\n"

    def _first(self, request: Request) -> Answer:
        return next(iter(self._engines.values())).routes()["/v1/models"](request)

    def _completions(self, request: Request) -> Answer:
        engine = self._choose(request.body.get("prompt"))
        return Status(503, "no worker") if engine is None else engine.completions(request)

    def _chat(self, request: Request) -> Answer:
        engine = self._choose(request.body.get("messages"))
        return Status(503, "no worker") if engine is None else engine.chat(request)

    def _choose(self, prompt: object) -> FakeEngine | None:
        well = [engine for engine in self._engines.values() if not engine.down]
        if not well:
            return None
        index = zlib.crc32(json.dumps(prompt)[:PREFIX_CHARS].encode()) if self._site.affinity else next(self._turns)
        chosen = well[index % len(well)]
        self._chosen[chosen.url] += 1
        return chosen
