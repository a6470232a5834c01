"""Preflight's rules over the tier of stores: each variable that kvstrata.l2 would refuse is named."""

from typing import Any

import pytest
import yaml

from kvstrata.paths import PROJECT
from kvstrata.preflight.cache import judge_cache


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lmcache_placement": "anywhere"}, "lmcache_placement is 'anywhere'"),
        ({"lmcache_stripe_width": 300}, "lmcache_stripe_width is 300"),
        (
            {"lmcache_offload_policy": {"name": "never"}, "vllm_lmcache_recheck_s": 0},
            "lmcache_offload_policy is {'name': 'never'}",
        ),
        ({"lmcache_offload_policy": {"name": "all", "after": 2}}, "no option 'after'"),
        ({"lmcache_min_load_gbps": -1}, "lmcache_min_load_gbps is -1"),
        ({"lmcache_l2_options": {"load_connections": 65}}, "lmcache_l2_options.load_connections is 65"),
        ({"lmcache_l2_options": {"load_conections": 8}}, "load_conections is unknown"),
        ({"lmcache_l2_options": {"piece_bytes": "1M"}}, "piece_bytes is '1M'; allowed: int"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(given: dict[str, Any], said: str) -> None:
    problems = judge_cache("gpu1", given)
    assert len(problems) == 1
    assert said in str(problems[0])
    assert "docs/l2.md" in str(problems[0])


def test_a_ca_without_stores_that_speak_tls_is_refused() -> None:
    problems = judge_cache("gpu1", {"lmcache_stores_ca": "/etc/ssl/site.pem"})
    assert ["lmcache_stores_ca is '/etc/ssl/site.pem'" in str(problem) for problem in problems] == [True]
    assert judge_cache("gpu1", {"lmcache_stores_ca": "/etc/ssl/site.pem", "kvrocks_tls": {"first_port": 7666}}) == []


def test_what_the_documentation_shows_is_accepted() -> None:
    given = {
        "lmcache_placement": "local_first",
        "lmcache_stripe_width": 0,
        "lmcache_offload_policy": {"name": "second_use"},
        "vllm_lmcache_recheck_s": 0,
        "lmcache_min_load_gbps": 4.0,
        "lmcache_l2_options": {"load_connections": 8, "piece_bytes": 2097152},
    }
    assert judge_cache("gpu1", given) == []


@pytest.mark.parametrize(("asked", "said"), [({}, "'its default, 30'"), ({"vllm_lmcache_recheck_s": 5}, "5")])
def test_a_policy_that_counts_lookups_wants_every_prompt_asked_about(asked: dict[str, Any], said: str) -> None:
    given = {"lmcache_offload_policy": {"name": "min_prefix"}, **asked}
    [problem] = judge_cache("gpu1", given)
    assert str(problem).startswith(
        f"gpu1: vllm_lmcache_recheck_s is {said}; allowed: 0 with lmcache_offload_policy min_prefix"
    )
    assert judge_cache("gpu1", {"lmcache_offload_policy": {"name": "all"}, **asked}) == []


def test_the_default_is_that_of_the_role() -> None:
    defaults = yaml.safe_load((PROJECT / "roles" / "vllm" / "defaults" / "main.yml").read_text())
    (problem,) = judge_cache("gpu1", {"lmcache_offload_policy": {"name": "tinylfu"}})
    assert f"its default, {defaults['vllm_lmcache_recheck_s']}'" in str(problem)
