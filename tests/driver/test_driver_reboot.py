"""When a node restarts, and when loading the module is enough."""

from __future__ import annotations

from typing import Any

import pytest

from kvstrata.driver.decide import decide
from kvstrata.driver.reboot import Activation, activation
from tests.driver.probes import probe, wanted


def module(version: str, flavour: str) -> dict[str, str]:
    return {"version": version, "flavour": flavour, "signer": ""}


@pytest.mark.parametrize(
    ("loaded", "installed", "nouveau", "expected"),
    [
        (None, None, False, Activation()),
        (None, None, True, Activation()),
        (None, module("580.95.05", "open"), False, Activation(load=True)),
        (module("580.95.05", "open"), module("580.95.05", "open"), False, Activation()),
        # Where /proc says nothing of the flavour, the version alone counts.
        (module("580.95.05", ""), module("580.95.05", "open"), False, Activation()),
        (module("580.95.05", "open"), None, False, Activation()),
    ],
)
def test_a_node_does_not_restart(loaded: Any, installed: Any, nouveau: bool, expected: Activation) -> None:
    assert activation(probe("l40s", loaded=loaded, installed=installed, nouveau=nouveau)) == expected


@pytest.mark.parametrize(
    ("loaded", "installed", "nouveau", "reason"),
    [
        (module("570.133.20", "open"), module("580.95.05", "open"), False, "the loaded module is 570.133.20 (open)"),
        (module("580.95.05", "proprietary"), module("580.95.05", "open"), False, "the installed one 580.95.05 (open)"),
        (None, module("580.95.05", "open"), True, "nouveau holds the GPUs"),
    ],
)
def test_a_node_restarts_for_another_module_and_for_nouveau(
    loaded: Any, installed: Any, nouveau: bool, reason: str
) -> None:
    step = activation(probe("l40s", loaded=loaded, installed=installed, nouveau=nouveau))
    assert reason in step.reboot
    assert not step.load


def test_a_restart_is_announced_before_anything_is_installed() -> None:
    node = probe("h100-hgx")
    assert decide(wanted(node, "580.95.05"), node).actions[-1] == (
        "restart the node: the loaded module is 570.133.20 (open), the installed one 580.95.05 (open)"
    )
    fresh = probe("gh200")
    assert not any("restart" in action for action in decide(wanted(fresh), fresh).actions)
