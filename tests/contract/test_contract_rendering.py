"""Whether a router had the tokens of prompts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvstrata.contract import judge
from kvstrata.contract.figures import Figures, Locality, Spread
from kvstrata.contract.rendering import Rendered, read
from kvstrata.contract.run import used_note

# As vllm-router 0.1.17 gave them with 32 workers on a machine that was too busy for them.
TOLD = """
vllm_router_kv_routing_inputs_total{transport="http",result="render"} 96401
vllm_router_kv_routing_inputs_total{transport="http",result="preparation_unavailable"} 48495
"""


def test_what_a_router_asked_for_and_did_not_get_is_read_from_its_figures() -> None:
    assert read(TOLD) == Rendered(144896, 48495)
    assert read("vllm_router_requests_total 5") == Rendered(0, 0)


def test_the_share_of_a_load_is_what_was_asked_during_it() -> None:
    assert Rendered(200, 30).since(Rendered(100, 20)) == pytest.approx(0.1)
    assert Rendered(5, 1).since(Rendered(5, 1)) is None


def test_a_router_without_tokens_is_not_judged_and_that_is_noted() -> None:
    spread = Spread({"a": 60, "b": 60}, {"a": 1, "b": 1})
    found = Figures(120, 0, 0, 0, 1.0, 10, 5, None, None, Locality(60, 60, 6, 6), spread, None, ())
    found = replace(found, untold=0.3, cores=0.1, waiting=0.01)
    for verdict in (judge.locality("arm", [found]), judge.spread("arm", [found])):
        assert verdict.ok is None
        assert "NOT JUDGED: the router asked engines for tokens" in verdict.said
    assert judge.locality("arm", [replace(found, untold=0.01)]).ok is False
    assert "often had no tokens of prompts: 1 of 2 loads" in str(used_note([found, replace(found, untold=None)]))
