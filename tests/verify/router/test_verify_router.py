"""The router's rows: whom it has, how it chooses, what it hears and what it counts, of both kinds."""

from __future__ import annotations

from typing import Any

import pytest

from kvstrata.verify.check import Check, Layer, Status
from kvstrata.verify.layers import router
from kvstrata.verify.layers.router import policy
from tests.verify.fakes.site import Site
from tests.verify.test_verify_layers import ask

REQUESTS = 'vllm_router_requests_total{route="/v1/completions"} 4\n'


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "SETTLE_S", 0.2)
    monkeypatch.setattr(policy, "POLL_S", 0.05)


def asked(site: Site, check_id: str) -> Check:
    return ask(site, Layer.ROUTER, check_id)


def test_another_model_is_told(site: Site) -> None:
    site.router.routes["/v1/models"] = lambda body: {"data": [{"id": "other"}]}
    check = asked(site, "router.models")
    assert (check.status, check.seen) == (Status.FAIL, "other")


def test_figures_without_requests_are_told(site: Site) -> None:
    site.router_metrics = "vllm_router_active_workers 2\n"
    check = asked(site, "router.metrics")
    assert check.status is Status.FAIL
    assert check.seen == "1 samples, none of them vllm_router_requests_total"


def test_a_router_that_chooses_otherwise_is_named(site: Site) -> None:
    site.router_metrics = REQUESTS + 'vllm_router_prefix_routing_decisions_total{policy="kv_aware",stage="x"} 3\n'
    check = asked(site, "router.policy")
    assert (check.status, check.seen) == (Status.FAIL, "it chose by kv_aware")


def test_a_policy_that_no_figure_tells_is_not_judged(site: Site) -> None:
    site.router_metrics = REQUESTS
    assert asked(site, "router.policy").status is Status.SKIP


def of_events(site: Site, found: str) -> Check:
    site.document["nodes"][0]["router"]["policy"] = "kv_aware"
    sent: list[Any] = []

    def completion(body: dict[str, Any]) -> object:
        sent.append(body["prompt"])
        again = sum(prompt == body["prompt"] for prompt in sent) - 1
        site.router_metrics = (
            f'{REQUESTS}vllm_router_policy_decisions_total{{policy="kv_aware"}} {len(sent)}\n'
            f'vllm_router_kv_placement_lookups_total{{result="miss"}} {len(sent) - again}\n'
            f'vllm_router_kv_placement_lookups_total{{result="{found}"}} {again}\n'
        )
        return {"choices": [{"text": ""}], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}

    site.router.routes["/v1/completions"] = completion
    return asked(site, "router.events")


def test_a_router_that_follows_caches_finds_a_prompt_that_was_sent_before(site: Site) -> None:
    check = of_events(site, "hit")
    assert check.status is Status.PASS
    assert "found a prefix" in check.seen


def test_a_router_that_hears_of_no_cache_is_named(site: Site) -> None:
    check = of_events(site, "missing_tokens")
    assert check.status is Status.FAIL
    assert check.seen.startswith("0 lookups found a prefix within")


def test_a_router_that_needs_no_events_has_no_row_for_them(site: Site) -> None:
    assert "router.events" not in {check.id for check in router.checks(site.context())}


# -- frontends of Dynamo -----------------------------------------------------------------------------


def of_dynamo(site: Site, *workers: int, registered: int = 1, mode: str = "kv") -> None:
    """Make the router a frontend that has discovered the engines of the nodes of these numbers."""
    for node in site.document["nodes"]:
        node["engines"][0] |= {"server": "dynamo", "rpc_port": 9200}
    told = site.document["nodes"][0]["router"]
    told |= {"kind": "dynamo-frontend", "policy": mode, "metrics_host": told["host"], "metrics_port": told["port"]}
    site.router.routes["/health"] = lambda body: {
        "instances": [
            {
                "endpoint": "generate",
                "instance_id": index,
                "transport": {"tcp": f"10.9.0.{10 + index}:9200/{index:x}/x"},
            }
            for index in workers
        ]
    }
    site.router_metrics = "dynamo_frontend_requests_total 3\ndynamo_component_router_kv_hit_rate_count 3\n" + "".join(
        f'dynamo_component_router_worker_registered{{router_worker_id="{index}"}} {registered}\n' for index in workers
    )


@pytest.mark.parametrize(
    ("workers", "registered", "seen"),
    [
        ((1, 2), 1, "2, all healthy"),
        ((1,), 1, "missing 10.9.0.12:9200"),
        ((1, 2, 3), 1, "unknown 10.9.0.13:9200"),
        ((1, 2), 0, "unhealthy 10.9.0.11:9200; unhealthy 10.9.0.12:9200"),
    ],
)
def test_a_frontend_has_exactly_the_workers_of_the_inventory(
    site: Site, workers: tuple[int, ...], registered: int, seen: str
) -> None:
    of_dynamo(site, *workers, registered=registered)
    check = asked(site, "router.workers")
    assert check.seen == seen
    assert check.status is (Status.PASS if seen == "2, all healthy" else Status.FAIL)


def test_a_frontend_tells_its_mode_by_the_figures_that_it_has(site: Site) -> None:
    of_dynamo(site, 1, 2)
    assert asked(site, "router.policy").status is Status.PASS
    site.router_metrics = "dynamo_frontend_requests_total 3\n"
    check = asked(site, "router.policy")
    assert check.seen == "its figures are those of no router mode kv"
    of_dynamo(site, 1, 2, mode="round-robin")
    assert asked(site, "router.policy").status is Status.FAIL
    site.router_metrics = "dynamo_frontend_requests_total 3\n"
    assert asked(site, "router.policy").status is Status.SKIP
