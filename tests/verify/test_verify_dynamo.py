"""An engine inside a worker of Dynamo, asked as if it were vLLM's own server."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from kvstrata.cluster import Engine, EngineServer
from kvstrata.verify import dynamo
from kvstrata.verify.check import UnableError
from kvstrata.verify.dynamo import Worker
from kvstrata.verify.http import Service, UnansweredError
from tests.verify.fakes.shell import FakeShell
from tests.verify.fakes.web import Code, WebServer

ENGINE = Engine("vllm@0.service", "10.9.0.11", 8000, server=EngineServer.DYNAMO, rpc_port=9200, event_port=20080)
NUMBER = 3724936612768903575
METRICS = f'vllm:prompt_tokens_total{{worker_id="{NUMBER:x}"}} 3\n'


class Frontend:
    """A frontend that knows the worker, and what was asked of it."""

    def __init__(self) -> None:
        self.server = WebServer()
        self.asked: list[dict[str, Any]] = []
        self.instances: object = {
            "instances": [
                {"endpoint": "generate", "instance_id": NUMBER, "transport": {"tcp": "10.9.0.11:9200/33b1/generate"}},
                {"endpoint": "other", "instance_id": 1, "transport": {"tcp": "10.9.0.11:9200/33b1/other"}},
            ]
        }
        self.server.routes = {
            "/health": lambda body: self.instances,
            "/v1/models": lambda body: {"data": [{"id": "m", "context_window": 8192}]},
            "/v1/completions": self._complete,
        }

    def _complete(self, body: dict[str, Any]) -> object:
        self.asked.append(body)
        answer = {
            "choices": [{"text": "x"}],
            "nvext": {
                "completion_token_ids": [7],
                "engine_data": {"prompt_token_ids": [1, 2], "prompt_logprobs": [None, {"2": {"logprob": -1.0}}]},
            },
        }
        return iter([json.dumps(answer), "[DONE]"]) if body.get("stream") else answer


@pytest.fixture
def frontend() -> Iterator[Frontend]:
    made = Frontend()
    with made.server:
        yield made


@pytest.fixture
def shell(frontend: Frontend) -> Iterator[FakeShell]:
    made = FakeShell()
    made.ports["10.9.0.11", 9000] = frontend.server.port
    with WebServer() as status:
        status.routes = {"/health": lambda body: "", "/metrics": lambda body: METRICS}
        made.ports["10.9.0.11", 8000] = status.port
        yield made


def worker(shell: FakeShell) -> Worker:
    frontends = [Service(shell, host, 9000) for host in ("10.9.0.99", "10.9.0.11")]
    return Worker(shell, ENGINE, frontends, "/srv/models/m")


def test_a_request_goes_to_that_worker_by_the_first_frontend_that_answers(shell: FakeShell, frontend: Frontend) -> None:
    answer = worker(shell).post("/v1/completions", {"prompt": "a", "return_token_ids": True, "prompt_logprobs": 5})
    assert frontend.asked == [
        {
            "prompt": "a",
            "prompt_logprobs": 5,
            "nvext": {"backend_instance_id": NUMBER, "extra_fields": ["completion_token_ids", "engine_data"]},
        }
    ]
    (choice,) = answer["choices"]
    assert choice["token_ids"] == [7]
    assert choice["prompt_token_ids"] == [1, 2]
    assert choice["prompt_logprobs"] == [None, {"2": {"logprob": -1.0}}]


def test_what_streams_has_its_token_ids_where_vllm_has_them(shell: FakeShell) -> None:
    body = {"prompt": "a", "return_token_ids": True, "stream": True}
    (event,) = worker(shell).events("/v1/completions", body, 5)
    assert event["choices"][0]["token_ids"] == [7]


def test_health_and_figures_come_from_the_worker_itself(shell: FakeShell) -> None:
    asked = worker(shell)
    assert asked.status("/health") == 200
    assert asked.metrics().total("vllm:prompt_tokens_total") == 3


def test_the_models_length_is_the_frontends_context_window(shell: FakeShell) -> None:
    assert worker(shell).json("/v1/models")["data"][0]["max_model_len"] == 8192


def test_a_worker_that_no_frontend_knows_is_named(shell: FakeShell, frontend: Frontend) -> None:
    frontend.instances = {"instances": []}
    with pytest.raises(UnansweredError, match=r"the frontend 10\.9\.0\.11:9000 knows no worker at 10\.9\.0\.11:9200"):
        worker(shell).post("/v1/completions", {"prompt": "a"})


def test_of_two_workers_at_one_address_the_living_one_is_asked(shell: FakeShell, frontend: Frontend) -> None:
    assert isinstance(frontend.instances, dict)
    dead = {"endpoint": "generate", "instance_id": 255, "transport": {"tcp": "10.9.0.11:9200/ff/generate"}}
    frontend.instances["instances"].insert(0, dead)
    frontend.instances["instances"].append(dead)
    worker(shell).post("/v1/completions", {"prompt": "a"})
    assert frontend.asked[0]["nvext"]["backend_instance_id"] == NUMBER


def test_a_worker_is_ready_when_a_frontend_knows_it(shell: FakeShell, frontend: Frontend) -> None:
    assert worker(shell).ready()
    frontend.instances = {"instances": []}
    assert not worker(shell).ready()


def test_without_any_frontend_that_answers_the_last_ones_words_are_told(shell: FakeShell, frontend: Frontend) -> None:
    frontend.instances = Code(503)
    with pytest.raises(UnansweredError, match=r"10\.9\.0\.11:9000/health answered 503"):
        worker(shell).post("/v1/completions", {"prompt": "a"})


def test_tokens_are_counted_on_the_node_with_the_models_own_tokenizer(shell: FakeShell) -> None:
    told: list[str] = []

    def count(argv: Sequence[str]) -> str:
        told.extend([argv[0], argv[3], zlib.decompress(base64.b64decode(argv[4])).decode()])
        return "12\n"

    shell.answers[f"{dynamo.PYTHON} -c"] = count
    assert worker(shell).post("/tokenize", {"model": "m", "prompt": "äh, some text"}) == {"count": 12}
    assert told == [dynamo.PYTHON, "/srv/models/m", "äh, some text"]


def test_a_text_that_no_command_can_hold_is_not_counted(shell: FakeShell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamo, "MOST_CHARS", 10)
    with pytest.raises(UnableError, match="too long for a command"):
        worker(shell).post("/tokenize", {"prompt": "some text"})
