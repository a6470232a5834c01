"""The engine layer on fake replicas: each fault is named by its check, and by no other one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kvstrata.verify.check import Check, Status
from kvstrata.verify.layers import engine
from tests.verify.fakes import engines
from tests.verify.fakes.site import Code, Site


def asked(site: Site) -> dict[str, Check]:
    return {check.id: check for check in engine.checks(site.context())}


def failed(site: Site) -> list[str]:
    return [check.id for check in asked(site).values() if check.bad]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SETTLE_S", 0.05)
    monkeypatch.setattr(engine, "POLL_S", 0.01)


def test_a_sound_engine_passes_every_check(site: Site) -> None:
    checks = asked(site)
    assert list(checks) == [
        "engine.health",
        "engine.model",
        "engine.tokens",
        "engine.logprobs",
        "engine.connector",
        "engine.errors",
    ]
    assert {check.status for check in checks.values()} == {Status.PASS}


def test_a_dead_engine_is_named_once_and_asked_nothing_more(site: Site) -> None:
    site.engine["node1"].routes["/health"] = lambda body: Code(503)
    checks = asked(site)
    assert failed(site) == ["engine.health"]
    skipped = [check for check in checks.values() if check.status is Status.SKIP]
    assert len(skipped) == 5
    assert skipped[0].seen == "NOT CHECKED: follows from engine.health on node1 (vllm@0.service 10.9.0.11:8000)"


def test_another_model_is_named_once(site: Site) -> None:
    site.engine["node1"].routes["/v1/models"] = lambda body: {"data": [{"id": "other", "max_model_len": 8192}]}
    assert failed(site) == ["engine.model"]


def test_an_engine_that_gives_fewer_tokens_is_named_once(site: Site) -> None:
    def short(body: dict[str, Any]) -> object:
        return engines.completion(body | {"max_tokens": min(3, body["max_tokens"])})

    site.engine["node1"].routes["/v1/completions"] = short
    assert failed(site) == ["engine.tokens"]


def test_nan_is_named_once(site: Site) -> None:
    def broken(body: dict[str, Any]) -> object:
        answer = engines.completion(body)
        if "logprobs" in answer["choices"][0]:
            answer["choices"][0]["logprobs"]["token_logprobs"][0] = float("nan")
        return json.dumps(answer)

    site.nodes["node1"].count["queries"] = 1
    site.engine["node1"].routes["/v1/completions"] = broken
    assert failed(site) == ["engine.logprobs"]
    assert asked(site)["engine.logprobs"].seen == "output token 1: NaN"


def test_an_engine_that_cannot_print_its_log_probabilities_is_named_once(site: Site) -> None:
    def refuses(body: dict[str, Any]) -> object:
        return Code(500) if "logprobs" in body else engines.completion(body)

    site.nodes["node1"].count["queries"] = 1
    site.engine["node1"].routes["/v1/completions"] = refuses
    assert failed(site) == ["engine.logprobs"]


def test_an_engine_started_without_connector_is_named_once(site: Site) -> None:
    site.nodes["node1"].connected = False
    site.nodes["node1"].shell.answers["sh -c \nfor unit in"] = engines.process(config="model: /m\n")
    assert failed(site) == ["engine.connector"]
    assert "started without kv-transfer-config" in asked(site)["engine.connector"].seen


def test_an_engine_whose_connector_never_asks_is_named_once(site: Site) -> None:
    site.nodes["node1"].connected = False
    site.nodes["node1"].shell.answers["sh -c \nfor unit in"] = engines.process(written=3000)
    assert failed(site) == ["engine.connector"]
    seen = asked(site)["engine.connector"].seen
    assert seen.endswith("but never asked its cache for a token (its file was changed after it began)")


def test_an_engine_that_gives_no_answer_leaves_the_connectors_use_unproven(site: Site) -> None:
    site.engine["node1"].routes["/v1/completions"] = lambda body: Code(500)
    checks = asked(site)
    assert failed(site) == ["engine.tokens"]
    assert checks["engine.connector"].status is Status.SKIP
    assert "not proven that it asks its cache" in checks["engine.connector"].seen


def test_a_node_that_cannot_say_how_its_engine_was_started_is_an_error_and_no_failure(site: Site) -> None:
    del site.nodes["node1"].shell.answers["sh -c \nfor unit in"]
    assert asked(site)["engine.connector"].status is Status.ERROR


def test_a_node_without_lmcache_is_not_asked_for_a_connector(site: Site) -> None:
    site.document["nodes"][0]["lmcache"] = None
    site.nodes["node1"].connected = False
    assert "engine.connector" not in asked(site)
    assert failed(site) == []


def test_preemptions_and_aborted_requests_are_told_and_fail_nothing(site: Site) -> None:
    metrics = """vllm:request_success_total{finished_reason="length"} 7.0
vllm:request_success_total{finished_reason="abort"} 2.0
vllm:num_preemptions_total{engine="0"} 3.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:external_prefix_cache_queries_total 1.0
"""
    site.engine["node1"].routes["/metrics"] = lambda body: metrics
    check = asked(site)["engine.errors"]
    assert check.status is Status.PASS
    assert check.seen == (
        "9 requests since its start, 2 aborted, 0 ended in an error; 3 preemptions; KV cache 25% used"
    )
    assert (check.data["aborted"], check.data["preemptions"], check.data["kv_usage_share"]) == (2, 3, 0.25)


def test_several_replicas_of_a_node_are_read_with_one_command(site: Site) -> None:
    first = site.document["nodes"][0]["engines"]
    first.append({**first[0], "unit": "vllm@1.service"})
    shell = site.nodes["node1"].shell
    shell.answers["sh -c \nfor unit in"] = engines.process() + "\n" + engines.process("vllm@1.service")
    assert failed(site) == []
    shell.ran.clear()
    list(engine.checks(site.context()))
    assert len(shell.ran) == 1
