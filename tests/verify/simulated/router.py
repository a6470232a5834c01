"""The site's endpoint: passes each completion to one engine, a conversation to the one where it was before."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Mapping

from tests.verify.simulated.state import FakeSite
from tests.verify.simulated.vllm import FakeEngine
from tests.verify.simulated.web import Answer, Request, Route, Status

# By its first characters a prompt is known again.
PREFIX_CHARS = 128


class FakeRouter:
    """The router in front of all engines, by their URLs."""

    def __init__(self, site: FakeSite, engines: Mapping[str, FakeEngine]) -> None:
        self._site, self._engines = site, engines
        self._turns = itertools.count()
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
        if not self._site.affinity:
            return well[next(self._turns) % len(well)]
        return well[zlib.crc32(json.dumps(prompt)[:PREFIX_CHARS].encode()) % len(well)]
