"""Each fault planted in a lab that is deployed: its check names it, and nothing else fails. Minutes for each."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from kvstrata.lab.planted import run
from kvstrata.lab.planted.faults import FAULTS, Fault
from kvstrata.lab.planted.site import Site, running


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    name = os.environ.get("KVSTRATA_TEST_PLANTED")
    if name is None:
        pytest.skip("NOT CHECKED: that verify names planted faults; KVSTRATA_TEST_PLANTED=lab plants them in that lab")
    found = running(name)
    run.clean(found)
    yield found
    run.clean(found)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_verify_names_the_planted_fault_and_nothing_else(site: Site, fault: Fault) -> None:
    row = run.one(site, fault, print, after=False)
    assert not row.not_planted
    assert row.named
    assert row.others == ()
