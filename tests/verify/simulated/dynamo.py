"""Dynamo: a frontend that passes requests to workers, and what a worker's status server tells."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from kvstrata.cluster import Engine
from kvstrata.verify import dynamo
from tests.verify.simulated.router import FakeRouter
from tests.verify.simulated.state import FakeNode, FakeSite
from tests.verify.simulated.vllm import FakeEngine
from tests.verify.simulated.web import Answer, Request, Route, Status


def status_routes(engine: FakeEngine) -> dict[str, Route]:
    """A worker's own port: no API, only health and figures."""
    return {path: route for path, route in engine.routes().items() if path in ("/health", "/metrics")}


class FakeFrontend(FakeRouter):
    """The frontend in front of all workers, which it knows by numbers."""

    def __init__(self, site: FakeSite, workers: Mapping[str, tuple[Engine, FakeEngine]], node: FakeNode) -> None:
        super().__init__(site, {url: fake for url, (_, fake) in workers.items()}, node)
        known = list(self._engines)
        self._numbers = {url: 7000 + place for place, url in enumerate(known)}
        self._addresses = {url: dynamo.address(workers[url][0]) for url in known}

    def routes(self) -> dict[str, Route]:
        """Its HTTP API."""
        models = {"data": [{"id": self._model(), "context_window": self._site.document["model"]["max_model_len"]}]}
        return {
            "/health": lambda _: {"status": "healthy", "instances": self._instances()},
            "/metrics": self._metrics,
            "/v1/models": lambda _: models,
            "/v1/completions": lambda request: self._passed(request, "/v1/completions", "prompt"),
            "/v1/chat/completions": lambda request: self._passed(request, "/v1/chat/completions", "messages"),
        }

    def _model(self) -> str:
        return str(self._site.document["model"]["name"])

    def _instances(self) -> list[dict[str, Any]]:
        up = {url: number for url, number in self._numbers.items() if not self._engines[url].down}
        return [
            {
                "endpoint": endpoint,
                "instance_id": number,
                "transport": {"tcp": f"{self._addresses[url]}/{number:x}/dynamo/backend/{endpoint}"},
            }
            for url, number in up.items()
            for endpoint in (dynamo.GENERATE, f"worker_kv_query_source_{number:x}")
        ]

    def _metrics(self, _: Request) -> Answer:
        sent = self._chosen.total()
        lines = [
            f'dynamo_frontend_requests_total{{model="{self._model()}"}} {sent}',
            f"dynamo_component_router_kv_hit_rate_count {sent}",
            f'dynamo_component_kv_cache_events_applied{{event_type="stored",status="ok"}} {self._stored()}',
        ]
        lines += [
            f'dynamo_component_router_worker_registered{{router_worker_id="{number}"}} 1'
            for number in self._numbers.values()
        ]
        return "\n".join(lines) + "\n"

    def _stored(self) -> int:
        return sum(engine.count["requests"] for engine in self._engines.values()) if self._site.tells_events else 0

    def _passed(self, request: Request, path: str, what: str) -> Answer:
        if "return_token_ids" in request.body:
            return Status(400, "Unsupported parameter(s): `return_token_ids`")
        wanted = request.body.get("nvext") or {}
        pinned = wanted.get("backend_instance_id")
        by_number = {number: self._engines[url] for url, number in self._numbers.items()}
        engine = self._choose(request.body.get(what)) if pinned is None else by_number.get(pinned)
        if engine is None:
            return Status(400, "Invalid request")
        fields = wanted.get("extra_fields") or []
        asked = {**request.body, "return_token_ids": bool(fields)}
        answer = engine.routes()[path](replace(request, body=asked))
        if isinstance(answer, Iterator):
            return _events(answer, fields)
        return _answered(answer, fields) if isinstance(answer, dict) else answer


def _events(events: Iterator[str], fields: list[str]) -> Iterator[str]:
    for event in events:
        yield event if event == "[DONE]" else json.dumps(_answered(json.loads(event), fields))


def _answered(answer: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    """As a frontend has it: what vLLM gives beyond the API, in a part of its own."""
    for choice in answer.get("choices", []):
        ids, data = choice.pop("token_ids", None), {}
        for name in ("prompt_token_ids", "prompt_logprobs"):
            value = choice.pop(name, None)
            if value is not None:
                data[name] = value
        told = {"completion_token_ids": ids, "engine_data": data}
        if fields:
            answer["nvext"] = {name: told[name] for name in fields}
    return answer
