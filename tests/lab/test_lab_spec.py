import re
from ipaddress import IPv4Network
from itertools import combinations
from typing import Any

import pytest
import yaml

from kvstrata.lab.errors import LabError
from kvstrata.lab.spec import PRESETS, LabSpec, preset
from kvstrata.paths import PROJECT


def spec(**changes: Any) -> LabSpec:
    fields: dict[str, Any] = {"name": "lab", "subnet": IPv4Network("10.77.0.0/24"), "node_prefix": "node"}
    return LabSpec(**(fields | changes))


def test_presets_have_the_addresses_that_the_inventories_name() -> None:
    lab, molecule = preset("lab"), preset("molecule")
    assert [str(lab.address(node)) for node in lab.nodes] == ["10.77.0.11", "10.77.0.12"]
    assert [str(molecule.address(node)) for node in molecule.nodes] == ["10.78.0.11", "10.78.0.12"]


def test_labs_can_run_beside_each_other() -> None:
    labs = [preset(name) for name in PRESETS]
    assert not any(one.subnet.overlaps(other.subnet) for one, other in combinations(labs, 2))
    assert len({container for lab in labs for container in map(lab.container, lab.possible_nodes)}) == 8 * len(labs)


@pytest.mark.parametrize("name", sorted(PRESETS.keys() - {"lab"}))
def test_molecules_scenarios_know_the_addresses_of_each_of_their_labs(name: str) -> None:
    lab = preset(name)
    (said,) = yaml.safe_load((PROJECT / f"molecule/shared/labs/{name}.yml").read_text()).values()
    addresses = {f"{node}_address": str(lab.address(node)) for node in lab.nodes}
    assert said["vars"] == {"lab_name": name, "lab_network": str(lab.subnet).removesuffix(".0/24"), **addresses}


def test_a_node_keeps_its_address_whatever_the_count() -> None:
    assert spec(count=1).address("node2") == spec(count=8).address("node2")


def test_every_node_has_a_local_unicast_mac_of_its_own() -> None:
    macs = {spec().mac(node) for node in spec().possible_nodes}
    assert len(macs) == 8
    assert all(int(mac[:2], 16) & 0b11 == 0b10 for mac in macs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "0 nodes: allowed are 1 to 8"),
        ({"count": 9}, "9 nodes: allowed are 1 to 8"),
        ({"drives": 9}, "9 drives per node: allowed are 0 to 8"),
        ({"drive_gib": 0}, "drive size 0 GiB: allowed are 1 to 1024"),
        ({"memory_gib": 0}, "memory limit 0 GiB: allowed are 1 and more, or none"),
        ({"suites": ("sid",)}, "suite 'sid': allowed are bookworm, trixie"),
        ({"suites": ("bookworm", "sid")}, "suite 'sid': allowed are bookworm, trixie"),
        ({"suites": ()}, "0 suites for 2 nodes: allowed are 1 to one for each node"),
        ({"suites": ("trixie",) * 3}, "3 suites for 2 nodes: allowed are 1 to one for each node"),
        ({"name": "Lab 1"}, "lab name 'Lab 1': allowed is [a-z]"),
        ({"node_prefix": ""}, "node prefix '': allowed is [a-z]"),
        ({"subnet": IPv4Network("10.0.0.0/28")}, "subnet 10.0.0.0/28: allowed are /24 and larger"),
    ],
)
def test_a_bad_spec_is_refused_naming_what_was_given_and_what_is_allowed(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError, match=re.escape(message)):
        spec(**changes)


@pytest.mark.parametrize(
    ("suites", "expected"),
    [
        ((), ["bookworm", "bookworm", "bookworm"]),
        (("trixie",), ["trixie", "trixie", "trixie"]),
        (("bookworm", "trixie"), ["bookworm", "trixie", "trixie"]),
        (("trixie", "bookworm", "trixie"), ["trixie", "bookworm", "trixie"]),
    ],
)
def test_each_node_has_the_suite_of_its_number_and_the_last_repeats(
    suites: tuple[str, ...], expected: list[str]
) -> None:
    made = spec(count=3, **({"suites": suites} if suites else {}))
    assert [made.suite(node) for node in made.nodes] == expected


def test_an_unknown_lab_is_refused() -> None:
    with pytest.raises(LabError, match="lab 'prod': allowed are lab, molecule"):
        preset("prod")


def test_an_unknown_node_is_refused() -> None:
    with pytest.raises(LabError, match="node 'm1': lab lab names its nodes node1 to node8"):
        spec().address("m1")
