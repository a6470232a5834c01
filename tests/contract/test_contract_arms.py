"""The arms are what the roles deploy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from kvstrata.contract import routers
from kvstrata.contract.arms import ARMS, DYNAMO_SETTINGS, chosen
from kvstrata.contract.disruption import routers_together
from kvstrata.contract.target import Worker
from kvstrata.paths import PROJECT

WORKERS = (Worker("w0", "http://127.0.0.1:1", "tcp://127.0.0.1:2"),)


def defaults(role: str) -> Any:
    return yaml.safe_load((PROJECT / "roles" / role / "defaults" / "main.yml").read_text())


def words(name: str, folder: Path, variants: tuple[str, ...] = ()) -> list[str]:
    (arm,) = [arm for arm in chosen(None, variants) if arm.name == name]
    return routers.command(arm, Path("/p/python"), 1, 2, WORKERS, routers.Place(folder, "model", 16))


def test_cache_aware_has_the_thresholds_of_the_role(tmp_path: Path) -> None:
    role, given = defaults("router"), words("cache_aware", tmp_path)
    assert given[given.index("--cache-threshold") + 1] == str(role["router_cache_threshold"])
    assert given[given.index("--balance-abs-threshold") + 1] == str(role["router_balance_absolute"])
    assert given[given.index("--balance-rel-threshold") + 1] == str(role["router_balance_relative"])
    assert given[given.index("--health-failure-threshold") + 1] == str(role["router_health_failures"])


def test_kv_aware_has_the_session_affinity_of_the_role_with_and_without_sessions(tmp_path: Path) -> None:
    given = words("kv_aware", tmp_path)
    assert given[given.index("--kv-aware-session-affinity-ttl-secs") + 1] == str(defaults("router")["router_session_s"])
    assert ARMS["kv_aware-session"].flags == ARMS["kv_aware"].flags


def test_dynamo_has_the_weights_and_the_migration_of_the_role(tmp_path: Path) -> None:
    role = defaults("dynamo")
    assert role["dynamo_weights"] == DYNAMO_SETTINGS
    assert role["dynamo_migration_limit"] == routers.MIGRATION_LIMIT
    given = words("dynamo-kv", tmp_path)
    assert given[given.index("--router-mode") + 1] == role["dynamo_router_mode"]


def test_a_variant_has_other_thresholds_and_each_once(tmp_path: Path) -> None:
    tight = "tight=cache_aware --balance-abs-threshold 8 --balance-rel-threshold 1.2"
    given = words("tight", tmp_path, (tight,))
    assert given.count("--balance-abs-threshold") == 1
    assert given[given.index("--balance-abs-threshold") + 1] == "8"
    # vllm-router's own, where a variant says none.
    assert "--balance-abs-threshold" not in words("own", tmp_path, ("own=cache_aware",))


def test_a_slowed_arm_remembers_sessions_for_as_much_longer() -> None:
    assert ARMS["kv_aware"].slowed(10.0).flags == ("--kv-aware-session-affinity-ttl-secs", "6000")
    assert ARMS["cache_aware"].slowed(10.0) == ARMS["cache_aware"]


def test_several_frontends_of_dynamo_tell_each_other_as_the_role_has_it() -> None:
    mapped = yaml.safe_load((PROJECT / "playbooks" / "vars" / "roles.yml").read_text())
    assert "length > 1" in mapped["dynamo_replica_sync"]
    assert routers_together(ARMS["dynamo-kv"]).flags == ("--router-replica-sync",)
    assert routers_together(ARMS["cache_aware"]) == ARMS["cache_aware"]
