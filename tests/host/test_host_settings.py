"""What the variables of the role host come to, and which values are refused."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kvstrata.host.settings import SYSTEMS, is_known, judge_host_settings, sysctls
from kvstrata.host.units import units_to_change
from kvstrata.paths import PROJECT

ROLE = PROJECT / "roles" / "host"
DATA = yaml.safe_load((ROLE / "vars" / "main" / "settings.yml").read_text())
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
RECOMMENDED: dict[str, dict[str, Any]] = {
    "vm.swappiness": {"value": 1},
    "vm.dirty_bytes": {"value": 4096, "most_of_memory": 0.1},
    "kernel.numa_balancing": {"value": 0, "where_present": True},
}


class AnsiblesNumber(int):
    """As Ansible gives them: of a class of its own."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError(f"{int(self)} was compared with {other}, and would be with all others")

    __hash__ = int.__hash__


def by_name(**own: Any) -> dict[str, dict[str, Any]]:
    given = {name.replace("__", "."): value for name, value in own.items()}
    return {entry["name"]: entry for entry in sysctls(RECOMMENDED, given)}


def said(given: dict[str, Any], system: dict[str, str] | None = None) -> list[str]:
    return [str(problem) for problem in judge_host_settings("n1", given, system)]


def test_the_recommended_settings_are_set_with_their_bounds() -> None:
    assert by_name() == {
        "vm.swappiness": {"name": "vm.swappiness", "value": "1", "most_of_memory": 1.0, "where_present": False},
        "vm.dirty_bytes": {"name": "vm.dirty_bytes", "value": "4096", "most_of_memory": 0.1, "where_present": False},
        "kernel.numa_balancing": {
            **{"name": "kernel.numa_balancing", "value": "0"},
            **{"most_of_memory": 1.0, "where_present": True},
        },
    }


def test_an_own_value_replaces_extends_or_leaves_alone() -> None:
    found = by_name(vm__swappiness=10, kernel__numa_balancing=None, fs__nr_open=2097152)
    assert found["vm.swappiness"] == {"name": "vm.swappiness", "value": "10"}
    assert found["fs.nr_open"]["value"] == "2097152"
    assert "kernel.numa_balancing" not in found


def test_a_ratio_replaces_the_bytes_of_which_the_kernel_keeps_only_one() -> None:
    assert set(by_name(vm__dirty_ratio=5)) == {"vm.swappiness", "kernel.numa_balancing", "vm.dirty_ratio"}


def test_a_ratio_left_alone_does_not_take_the_bytes_away() -> None:
    assert "vm.dirty_bytes" in by_name(vm__dirty_ratio=None)


def test_huge_pages_are_asked_for_in_mib() -> None:
    assert sysctls({}, {}, 512) == [{"name": "vm.nr_hugepages", "value": "", "mib": 512}]
    assert sysctls({}, {}, 0) == []


def test_the_defaults_of_the_role_pass() -> None:
    for release in SYSTEMS:
        family = "RedHat" if release.startswith(("Rocky", "RedHat")) else "Debian"
        assert said(DEFAULTS, {"family": family, "release": release}) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"host_nofile": 10}, "host_nofile is 10; allowed: 1024 to 1073741816"),
        ({"host_nofile": True}, "host_nofile is True; allowed: 1024 to 1073741816"),
        (
            {"host_nofile": 2097152},
            "host_nofile is 2097152; allowed: at most 1048576, or host_sysctls[fs.nr_open] no less than it",
        ),
        ({"host_memlock": "lots"}, "host_memlock is 'lots'; allowed: infinity, or bytes as systemd has them"),
        ({"host_hugepages_mib": -1}, "host_hugepages_mib is -1; allowed: 0 to"),
        ({"host_irqbalance_banned_cpus": "3-1"}, "host_irqbalance_banned_cpus is '3-1'; allowed: CPUs and ranges"),
        ({"host_ntp_servers": ["a b"]}, "host_ntp_servers is ['a b']; allowed: names and addresses of time servers"),
        ({"host_ntp_servers": "a"}, "host_ntp_servers is 'a'; allowed: names and addresses of time servers"),
        ({"host_time_wait_s": 601}, "host_time_wait_s is 601; allowed: 0 to 600 seconds"),
        ({"host_pinned_packages": ["nvidia-("]}, "host_pinned_packages is ['nvidia-(']; allowed: Python regular"),
        ({"host_pinned_packages": ['a"; }']}, "host_pinned_packages is ['a\"; }']; allowed: Python regular"),
        ({"host_sysctls": {"swappiness": 1}}, "host_sysctls[swappiness] is 1; allowed: names as sysctl has them"),
        ({"host_sysctls": {"vm.swappiness": [1]}}, "host_sysctls[vm.swappiness] is [1]; allowed: a number, a text"),
        ({"host_sysctls": {"vm.swappiness": True}}, "host_sysctls[vm.swappiness] is True; allowed: a number, a text"),
        ({"host_sysctls": {"kernel.core_pattern": "a\nb"}}, "allowed: a number, a text of one line, or null"),
        (
            {"host_sysctls": {"vm.dirty_bytes": 1, "vm.dirty_ratio": 1}},
            "host_sysctls[vm.dirty_bytes] is 1; allowed: either this or vm.dirty_ratio: the kernel forgets the other",
        ),
        (
            {"host_sysctls": {"vm.nr_hugepages": 8}, "host_hugepages_mib": 16},
            "host_sysctls[vm.nr_hugepages] is 8; allowed: either this or host_hugepages_mib",
        ),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_what_is_allowed(given: dict[str, Any], message: str) -> None:
    (found,) = said(given)
    assert found.startswith("n1: ")
    assert message in found


@pytest.mark.parametrize("name", ["host_nofile", "host_hugepages_mib", "host_time_wait_s"])
def test_a_number_of_ansible_is_not_looked_for_among_all_that_are_allowed(name: str) -> None:
    assert len(said({name: AnsiblesNumber(-5)})) == 1


def test_more_open_files_than_the_kernel_allows_by_default_need_the_kernel_to_allow_them() -> None:
    assert said({"host_nofile": 2097152, "host_sysctls": {"fs.nr_open": 2097152}}) == []
    assert len(said({"host_nofile": 2097152, "host_sysctls": {"fs.nr_open": 1048576}})) == 1


def test_a_system_that_the_role_does_not_know_is_refused() -> None:
    (found,) = said({}, {"family": "Debian", "release": "Debian 11"})
    assert found == f"n1: operating system is 'Debian 11'; allowed: {', '.join(SYSTEMS)}"


@pytest.mark.parametrize(
    ("distribution", "version", "known"),
    [
        ("debian", "13", True),
        ("ubuntu", "24.04", True),
        ("ubuntu", "24", False),
        ("ubuntu", "23.10", False),
        ("rocky", "9.4", True),
        ("rhel", "9.6", True),
        ("rocky", "8.10", False),
        ("arch", "", False),
    ],
)
def test_a_system_is_known_by_what_it_says_of_itself(distribution: str, version: str, known: bool) -> None:
    assert is_known(distribution, version) is known


def test_enterprise_linux_has_no_timesyncd() -> None:
    rocky = {"family": "RedHat", "release": "Rocky 9"}
    assert len(said({"host_time_sync": "timesyncd"}, rocky)) == 1
    assert said({"host_time_sync": "timesyncd"}, {"family": "Debian", "release": "Debian 13"}) == []


# --- the file of reasons ---


def test_every_setting_has_a_reason_and_a_source_that_can_be_opened() -> None:
    for name, entry in {**DATA["_host_recommended"], **DATA["_host_reasons"]}.items():
        assert len(entry["why"]) > 15, name
        assert entry["source"].startswith("https://"), name


def test_every_choice_of_the_role_has_its_reason() -> None:
    # These choose nothing: they add to what is there, or switch a part of it off.
    plain = {
        *("host_install_packages", "host_packages", "host_apt_update", "host_kernel_settings", "host_sysctls"),
        *("host_limits", "host_ntp_servers", "host_time_wait_s", "host_time_required", "host_pinned_packages"),
    }
    assert set(DATA["_host_reasons"]) == set(DEFAULTS) - plain


def test_the_recommended_settings_are_ones_that_an_inventory_could_set() -> None:
    assert said({"host_sysctls": {name: entry["value"] for name, entry in DATA["_host_recommended"].items()}}) == []


# --- units ---

SHOWN = """\
Id=chrony.service
LoadState=loaded
ActiveState=active
UnitFileState=enabled

Id=irqbalance.service
LoadState={load}
ActiveState=inactive
UnitFileState={file}
"""
CHRONY = {"unit": "chrony.service", "enabled": True, "active": True}


@pytest.mark.parametrize(
    ("load", "file", "wanted", "changes"),
    [
        # It ends by itself where there is nothing to balance: only whether it starts at boot counts.
        ("loaded", "enabled", {"enabled": True}, []),
        ("loaded", "disabled", {"enabled": True}, [True]),
        ("loaded", "enabled", {"enabled": False, "active": False}, [True]),
        ("loaded", "disabled", {"enabled": False, "active": False}, []),
        ("not-found", "", {"enabled": False, "active": False}, []),
        ("not-found", "", {"enabled": True}, [False]),
    ],
)
def test_only_units_that_are_not_as_wanted_are_changed(
    load: str, file: str, wanted: dict[str, bool], changes: list[bool]
) -> None:
    shown = SHOWN.format(load=load, file=file)
    found = units_to_change([CHRONY, {"unit": "irqbalance.service", **wanted}], shown)
    assert [unit["found"] for unit in found] == changes


def test_a_unit_that_does_not_run_is_started() -> None:
    shown = SHOWN.format(load="loaded", file="enabled").replace("ActiveState=active", "ActiveState=failed")
    found = units_to_change([CHRONY, {"unit": "irqbalance.service", "enabled": True}], shown)
    assert [unit["unit"] for unit in found] == ["chrony.service"]


def test_no_units_are_no_change_and_a_wrong_count_is_an_error() -> None:
    assert units_to_change([], "") == []
    with pytest.raises(ValueError, match="showed 2 units, asked for were 1"):
        units_to_change([CHRONY], SHOWN)
