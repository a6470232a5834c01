"""Numbers outside their range are refused with the range."""

import pytest

from kvstrata.paths import PROJECT
from kvstrata.preflight.variables import mistyped, site_specs

SPECS = site_specs(PROJECT)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("kvstrata_replicas", 0, "1 to 64"),
        ("kvstrata_chunk_tokens", 8, "16 to 4096"),
        ("kvstrata_dram_cache_gib", 0.0, "0.1 to 65536"),
        ("kvstrata_gpus", -1, "0 to 64"),
    ],
)
def test_a_number_outside_its_range_is_refused(name: str, value: float, allowed: str) -> None:
    [problem] = mistyped("node1", {name: value}, {name: SPECS[name]})
    assert str(problem).startswith(f"node1: {name} is {value!r}; allowed: {allowed}: ")


def test_a_number_inside_a_list_of_drives_is_judged_too() -> None:
    drives = [{"name": "d0", "device": "/dev/a", "store_gib": 0}]
    [problem] = mistyped("node1", {"kvstrata_drives": drives}, {"kvstrata_drives": SPECS["kvstrata_drives"]})
    assert str(problem).startswith("node1: kvstrata_drives[].store_gib is 0; allowed: 1 to 65536: ")


def test_the_ends_of_a_range_are_inside() -> None:
    assert mistyped("node1", {"kvstrata_replicas": 1}, {"kvstrata_replicas": SPECS["kvstrata_replicas"]}) == []
    assert mistyped("node1", {"kvstrata_replicas": 64}, {"kvstrata_replicas": SPECS["kvstrata_replicas"]}) == []
