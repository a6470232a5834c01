"""What the role host comes to on each system that it knows, through Ansible's own templar; nothing is run."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template

from kvstrata.host.settings import judge_host_settings
from kvstrata.paths import PROJECT

ROLE = PROJECT / "roles" / "host"
DEBIANS = [("Debian", "12"), ("Debian", "13"), ("Ubuntu", "22.04"), ("Ubuntu", "24.04")]
ELS = [("Rocky", "9.4"), ("RedHat", "9.6")]
SYSTEMCTL = "/etc/systemd/system"


@functools.cache
def _with_our_plugins() -> None:
    # Lookups by their full names are found by the loader of collections.
    init_plugin_loader()
    filter_loader.add_directory(str(PROJECT / "plugins" / "filter"))


def facts(system: tuple[str, str], container: bool = False) -> dict[str, Any]:
    name, version = system
    return {
        "os_family": "RedHat" if system in ELS else "Debian",
        "distribution": name,
        "distribution_version": version,
        "distribution_major_version": version.split(".")[0],
        "virtualization_tech_guest": ["container", "podman"] if container else [],
        "virtualization_type": "podman" if container else "NA",
    }


def role(expression: str, system: tuple[str, str] = ("Debian", "12"), *, container: bool = False, **own: Any) -> Any:
    """Return what an expression of the role's variables comes to on a system."""
    _with_our_plugins()
    loader = DataLoader()
    variables: dict[str, Any] = {"ansible_facts": facts(system, container), "ansible_search_path": [str(ROLE)]}
    for path in [ROLE / "defaults" / "main.yml", *sorted((ROLE / "vars" / "main").glob("*.yml"))]:
        variables |= loader.load_from_file(str(path), trusted_as_template=True)
    templar = Templar(loader=loader, variables=variables | {"ansible_managed": "Ansible managed"} | own)
    return templar.template(trust_as_template("{{ " + expression + " }}"))


def files(system: tuple[str, str], *, container: bool = False, **own: Any) -> dict[str, str | None]:
    return {file["path"]: file["content"] for file in role("_host_files", system, container=container, **own)}


@pytest.mark.parametrize("system", [*DEBIANS, *ELS])
def test_every_known_system_is_taken_with_the_defaults(system: tuple[str, str]) -> None:
    assert judge_host_settings("n1", {"host_time_sync": "chrony"}, role("_host_system", system)) == []
    assert role("_host_is_container", system) is False


def test_a_system_that_is_not_known_is_refused_by_its_release() -> None:
    (problem,) = judge_host_settings("n1", {}, role("_host_system", ("Debian", "11")))
    assert problem.given == "Debian 11"


@pytest.mark.parametrize("system", DEBIANS)
def test_debian_and_ubuntu_get_apts_files_and_names(system: tuple[str, str]) -> None:
    assert {"chrony", "irqbalance", "libnuma1", "python3-venv"} <= set(role("_host_packages", system))
    found = files(system, host_pinned_packages=["nvidia-"], host_hold_kernel=True)
    for line in ('    "nvidia-";', '    "linux-image-";', 'Unattended-Upgrade::Automatic-Reboot "false";'):
        assert line in str(found["/etc/apt/apt.conf.d/52kvstrata"]).splitlines()
    assert role("_host_units", system)[0] == {"unit": "chrony.service", "enabled": True, "active": True}


@pytest.mark.parametrize("system", ELS)
def test_enterprise_linux_gets_its_own_names_and_none_of_apts_files(system: tuple[str, str]) -> None:
    packages = set(role("_host_packages", system, host_hold_kernel=True))
    assert {"chrony", "irqbalance", "numactl-libs", "python3-dnf-plugin-versionlock"} <= packages
    assert not {"libnuma1", "python3-venv"} & packages
    assert "python3-dnf-plugin-versionlock" not in role("_host_packages", system)
    found = files(system, host_ntp_servers=["ntp.example"])
    assert found["/etc/apt/apt.conf.d/52kvstrata"] is None
    assert found["/etc/needrestart/conf.d/kvstrata.conf"] is None
    assert "server ntp.example iburst\ndriftfile /var/lib/chrony/drift\n" in str(found["/etc/chrony.conf"])
    assert role("_host_units", system)[0]["unit"] == "chronyd.service"


def test_without_servers_the_distributions_own_configuration_of_the_clock_is_left_alone() -> None:
    assert files(("Debian", "12"))["/etc/chrony/chrony.conf"] is None


def test_timesyncd_gets_its_servers_and_no_others() -> None:
    found = files(("Debian", "13"), host_time_sync="timesyncd", host_ntp_servers=["a", "b"])
    lines = str(found["/etc/systemd/timesyncd.conf.d/kvstrata.conf"]).splitlines()
    assert lines[-3:] == ["[Time]", "NTP=a b", "FallbackNTP="]
    assert found["/etc/chrony/chrony.conf"] is None


def test_a_container_gets_what_is_its_own_and_nothing_of_its_hosts() -> None:
    found = files(("Debian", "12"), container=True, host_ntp_servers=["a"], host_irqbalance_banned_cpus="0")
    assert {path for path, content in found.items() if content} == {
        *("/etc/systemd/system.conf.d/50-kvstrata.conf", "/etc/apt/apt.conf.d/52kvstrata"),
        "/etc/needrestart/conf.d/kvstrata.conf",
    }
    assert {path for path, content in found.items() if content == ""} == set()
    assert role("_host_units", container=True) == []
    assert not {"chrony", "irqbalance"} & set(role("_host_packages", container=True))
    assert role("_host_not_set", container=True)[-3:] == ["host_time_sync", "host_irqbalance", "host_numa_map"]


OFF: dict[str, Any] = {
    **{
        "host_kernel_settings": False,
        "host_transparent_hugepages": "keep",
        "host_transparent_hugepages_defrag": "keep",
    },
    **{"host_cpu_governor": "keep", "host_limits": False, "host_time_sync": "none", "host_irqbalance": "keep"},
    **{"host_unattended_upgrades": "keep", "host_needrestart": False, "host_numa_map": False},
}


@pytest.mark.parametrize("system", [*DEBIANS, *ELS])
def test_with_everything_switched_off_nothing_is_set_and_what_was_ours_is_removed(system: tuple[str, str]) -> None:
    assert role("_host_sysctls + _host_sysfs + _host_units + _host_not_set", system, **OFF) == []
    assert not any(files(system, **OFF).values())
    assert files(system, **OFF)["/etc/systemd/system.conf.d/50-kvstrata.conf"] == ""


def test_huge_pages_do_not_depend_on_the_other_kernel_settings() -> None:
    (entry,) = role("_host_sysctls", **OFF, host_hugepages_mib=1024)
    assert (entry["name"], entry["mib"]) == ("vm.nr_hugepages", 1024)


def test_irqbalance_is_stopped_or_kept_off_some_cpus() -> None:
    assert {"unit": "irqbalance.service", "enabled": False, "active": False} in role(
        "_host_units", host_irqbalance="disabled"
    )
    text = files(("Debian", "12"), host_irqbalance_banned_cpus="0-3")[f"{SYSTEMCTL}/irqbalance.service.d/kvstrata.conf"]
    assert "Environment=IRQBALANCE_BANNED_CPULIST=0-3" in str(text).splitlines()


def test_unattended_upgrades_can_be_switched_off_altogether() -> None:
    text = files(("Ubuntu", "24.04"), host_unattended_upgrades="disabled")["/etc/apt/apt.conf.d/52kvstrata"]
    assert str(text).splitlines()[1:] == ['APT::Periodic::Unattended-Upgrade "0";']
