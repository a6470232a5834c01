"""What playbooks/vars/roles.yml makes of an inventory for the role host, and of the NUMA map for the others."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from kvstrata.paths import PROJECT

FRESH: dict[str, Any] = {"nodes": {"0": {}}}
EARLIER: dict[str, Any] = {"nodes": {}}


def mapped(name: str, **variables: Any) -> Any:
    loader = DataLoader()
    path = PROJECT / "playbooks" / "vars" / "roles.yml"
    known = loader.load_from_file(str(path), trusted_as_template=True)
    return Templar(loader=loader, variables=known | variables).template(trust_as_template("{{ " + name + " }}"))


@pytest.mark.parametrize(
    ("facts", "numa"),
    [
        ({}, {}),
        ({"ansible_local": {}}, {}),
        ({"ansible_local": {"kvstrata_numa": EARLIER}}, EARLIER),
        ({"ansible_local": {"kvstrata_numa": EARLIER}, "kvstrata_numa": FRESH}, FRESH),
    ],
)
def test_the_map_that_this_run_wrote_counts_before_one_that_was_read(facts: dict[str, Any], numa: Any) -> None:
    for name in ("lmcache_numa", "vllm_numa"):
        assert mapped(name, ansible_facts=facts) == numa


@pytest.mark.parametrize(
    ("variables", "held"),
    [
        ({}, False),
        ({"kvstrata_gpus": 8}, False),
        ({"kvstrata_gpus": 8, "nvidia_driver_version": "595.71.05"}, True),
        ({"kvstrata_gpus": 0, "nvidia_driver_version": "595.71.05"}, False),
        ({"kvstrata_gpus": 8, "nvidia_driver_version": "595.71.05", "nvidia_driver_hold": False}, False),
        ({"kvstrata_gpus": 8, "nvidia_driver_version": "595.71.05", "nvidia_driver_mode": "present_already"}, False),
    ],
)
def test_the_kernel_is_held_where_a_driver_is_installed_for_it_and_held_too(
    variables: dict[str, Any], held: bool
) -> None:
    assert mapped("host_hold_kernel", **variables) is held


def test_unattended_upgrades_leave_the_driver_of_every_host_with_gpus() -> None:
    assert mapped("host_pinned_packages") == []
    assert "libnvidia-" in mapped("host_pinned_packages", kvstrata_gpus=8)
