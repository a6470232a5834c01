"""A driver that cannot be had, end to end: refused by preflight, before anything is changed on any host."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.refusals.site import Outcome, base, preflight


@pytest.fixture(scope="module")
def bad_driver(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder: Path = tmp_path_factory.mktemp("driver")
    inventory = base(folder)
    # No machine has so many.
    inventory["kvstrata"]["vars"].update(kvstrata_gpus=64, nvidia_driver_version="580")
    return preflight(inventory, folder)


def test_gpus_that_the_bus_does_not_show_are_refused(bad_driver: Outcome) -> None:
    problem = bad_driver.only("kvstrata_gpus")
    assert problem.startswith("n1: kvstrata_gpus is 64; allowed: ")
    assert "the NVIDIA GPUs on the node's PCI bus" in problem


def test_half_a_version_is_refused(bad_driver: Outcome) -> None:
    assert bad_driver.only("nvidia_driver_version") == (
        "n1: nvidia_driver_version is '580'; allowed: an exact version in quotes, as \"580.95.05\""
    )
    assert bad_driver.changes == {"changed=0"}
