"""The rules over the serving profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvstrata.preflight.serving import judge_profile, judge_profiles

DYNAMO = {"kvstrata_serving_profile": "dynamo"}


def lines(given: dict[str, Any]) -> list[str]:
    return [str(problem) for problem in judge_profile("n1", given)]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"router_policy": "kv_aware", "vllm_server": "openai"},
        {**DYNAMO, "router_port": 9001, "dynamo_migration_limit": 1, "etcd_lease_s": 30},
        {**DYNAMO, "vllm_server": "mocker", "vllm_mocker": {"block-size": 16}},
    ],
)
def test_what_the_profile_reads_passes(given: dict[str, Any]) -> None:
    assert lines(given) == []


def test_a_policy_of_the_router_is_refused_with_dynamo() -> None:
    (line,) = lines({**DYNAMO, "router_policy": "kv_aware"})
    assert line == (
        "n1: router_policy is 'kv_aware'; allowed: nothing while kvstrata_serving_profile is dynamo; a frontend's own "
        "variables are dynamo_*, and what it weighs is dynamo_router_mode"
    )


@pytest.mark.parametrize(
    "given", [{"dynamo_migration_limit": 1}, {"etcd_port": 2379}, {"vllm_mocker": {}}, {"vllm_first_rpc_port": 9200}]
)
def test_what_only_dynamo_reads_is_refused_without_it(given: dict[str, Any]) -> None:
    (line,) = lines(given)
    assert line.startswith(f"n1: {next(iter(given))} is ")
    assert line.endswith("allowed: nothing while kvstrata_serving_profile is router")


@pytest.mark.parametrize(("profile", "server"), [("router", "mocker"), ("router", "dynamo"), ("dynamo", "openai")])
def test_a_server_of_the_other_profile_is_refused(profile: str, server: str) -> None:
    (line,) = lines({"kvstrata_serving_profile": profile, "vllm_server": server})
    assert line.startswith(f"n1: vllm_server is {server!r}; allowed: ")


def test_two_profiles_on_one_site_are_refused() -> None:
    (problem,) = judge_profiles({"n1": DYNAMO, "n2": {}}, {})
    assert str(problem) == (
        "inventory: kvstrata_serving_profile is {'n1': 'dynamo', 'n2': 'router'}; allowed: one value for all nodes"
    )


def test_wheels_without_dynamo_are_refused_for_it_and_for_nothing_else(tmp_path: Path) -> None:
    lock = tmp_path / "node-x.txt"
    lock.write_text("# ai-dynamo==1\nvllm==0.31.0 --hash=sha256:0\nai-dynamo-runtime==1.6.1 --hash=sha256:0\n")
    assert judge_profiles({"n1": {}}, {"n1": lock}) == []
    (problem,) = judge_profiles({"n1": DYNAMO}, {"n1": lock})
    assert str(problem).startswith(
        "n1: kvstrata_serving_profile is 'dynamo'; allowed: router, for node-x.txt has no ai-dynamo"
    )
    lock.write_text(lock.read_text() + "ai-dynamo==1.6.1 --hash=sha256:0\n")
    assert judge_profiles({"n1": DYNAMO}, {"n1": lock}) == []


def test_wheels_that_nobody_knows_are_left_to_who_needs_them() -> None:
    assert judge_profiles({"n1": DYNAMO}, {"n1": None}) == []
