"""The whole decision, node by node."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from kvstrata.driver.decide import decide
from kvstrata.driver.model import Flavour, Plan
from tests.driver.probes import NAMES, probe, wanted

D12, U24, U22 = "6.1.0-40-amd64", "6.8.0-87-generic", "6.8.0-1041-nvidia-64k"
EL9 = "5.14.0-570.39.1.el9_6.x86_64"


def plan_of(name: str, version: str = "580.95.05", changes: dict[str, Any] | None = None, **options: Any) -> Plan:
    node = probe(name, **(changes or {}))
    return decide(wanted(node, version, **options), node)


@pytest.mark.parametrize(
    ("name", "version", "flavour", "install"),
    [
        (
            "l40s",
            "580.95.05",
            Flavour.OPEN,
            [f"linux-headers-{D12}", "nvidia-kernel-open-dkms=580.95.05-*", "nvidia-driver-cuda=580.95.05-*"],
        ),
        (
            "pascal",
            "580.95.05",
            Flavour.PROPRIETARY,
            [f"linux-headers-{D12}", "nvidia-kernel-dkms=580.95.05-*", "nvidia-driver-cuda=580.95.05-*"],
        ),
        (
            "mixed-served",
            "580.95.05",
            Flavour.PROPRIETARY,
            [f"linux-headers-{D12}", "nvidia-kernel-dkms=580.95.05-*", "nvidia-driver-cuda=580.95.05-*"],
        ),
        (
            "h100-hgx",
            "580.95.05",
            Flavour.OPEN,
            [
                "nvidia-dkms-580-open=580.95.05-*",
                "libnvidia-compute-580=580.95.05-*",
                "nvidia-utils-580=580.95.05-*",
                "nvidia-compute-utils-580=580.95.05-*",
                "nvidia-fabricmanager=580.95.05-*",
            ],
        ),
        (
            "h100-hgx",
            "570.148.08",
            Flavour.OPEN,
            [
                "nvidia-dkms-570-open=570.148.08-*",
                "libnvidia-compute-570=570.148.08-*",
                "nvidia-utils-570=570.148.08-*",
                "nvidia-compute-utils-570=570.148.08-*",
                "nvidia-fabricmanager-570=570.148.08-*",
            ],
        ),
        (
            "b200-hgx",
            "595.91.07",
            Flavour.OPEN,
            [
                f"linux-headers-{U24}",
                "nvidia-dkms-open=595.91.07-*",
                "libnvidia-compute=595.91.07-*",
                "nvidia-fabricmanager=595.91.07-*",
                "nvlsm",
                "infiniband-diags",
            ],
        ),
        (
            "gh200",
            "580.95.05",
            Flavour.OPEN,
            [
                f"linux-headers-{U22}",
                "nvidia-dkms-580-open=580.95.05-*",
                "libnvidia-compute-580=580.95.05-*",
                "nvidia-utils-580=580.95.05-*",
                "nvidia-compute-utils-580=580.95.05-*",
            ],
        ),
        (
            "a100-hgx",
            "570.148.08",
            Flavour.OPEN,
            [
                f"kernel-devel-{EL9}",
                "kmod-nvidia-open-dkms-570.148.08",
                "nvidia-driver-cuda-570.148.08",
                "nvidia-persistenced-570.148.08",
                "nvidia-fabric-manager-570.148.08",
            ],
        ),
        (
            "a100-hgx",
            "580.95.05",
            Flavour.OPEN,
            [
                f"kernel-devel-{EL9}",
                "kmod-nvidia-open-dkms-580.95.05",
                "nvidia-driver-cuda-580.95.05",
                "nvidia-persistenced-580.95.05",
                "nvidia-fabricmanager-580.95.05",
            ],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_node_gets_exactly_these_packages(name: str, version: str, flavour: Flavour, install: list[str]) -> None:
    plan = plan_of(name, version)
    assert plan.refusals == ()
    assert plan.flavour is flavour
    assert list(plan.install) == install


def test_fabric_manager_comes_with_an_nvswitch_and_never_without() -> None:
    with_it = {name for name in NAMES if any("fabric" in p.name for p in plan_of(name).packages)}
    assert with_it == {"h100-hgx", "a100-hgx", "b200-hgx"}
    assert plan_of("h100-hgx").services == ("nvidia-persistenced", "nvidia-fabricmanager")
    assert plan_of("l40s").services == ("nvidia-persistenced",)


def test_the_subnet_manager_and_its_kernel_modules_come_with_nvlink_5_alone() -> None:
    assert plan_of("b200-hgx").load_at_boot == ("mlx5_core", "mlx5_ib", "ib_umad")
    for name in set(NAMES) - {"b200-hgx"}:
        plan = plan_of(name)
        assert plan.load_at_boot == ()
        assert "nvlsm" not in plan.names


def test_a_node_without_gpus_in_the_inventory_gets_nothing() -> None:
    assert plan_of("no-gpu", gpus=0) == Plan()
    # Whatever is in it: the inventory says that it is none of ours.
    assert plan_of("l40s", gpus=0) == Plan()


def test_precompiled_modules_are_ubuntus_own_for_the_running_kernel() -> None:
    plan = plan_of("b200-hgx", "580.95.05", build="precompiled", repository="distribution")
    assert plan.refusals == ()
    assert plan.install[:4] == (
        f"linux-modules-nvidia-580-server-open-{U24}",
        "nvidia-headless-no-dkms-580-server-open=580.95.05-*",
        "nvidia-utils-580-server=580.95.05-*",
        "nvidia-compute-utils-580-server=580.95.05-*",
    )
    assert not any(name.startswith(("nvidia-dkms", "linux-headers")) for name in plan.names)


def test_proprietary_modules_can_be_asked_for_where_both_serve() -> None:
    assert "nvidia-kernel-dkms" in plan_of("l40s", flavour="proprietary").names


def test_driver_packages_are_held_and_kernel_packages_are_left_to_the_role_host() -> None:
    plan = plan_of("b200-hgx", "580.95.05")
    assert plan.hold == (
        "nvidia-dkms-580-open",
        "libnvidia-compute-580",
        "nvidia-utils-580",
        "nvidia-compute-utils-580",
        "nvidia-fabricmanager",
        "nvlsm",
    )
    assert plan_of("b200-hgx", hold=False).hold == ()


def test_a_node_that_is_as_wanted_needs_nothing() -> None:
    plan = plan_of("h100-hgx", "570.133.20")
    assert (plan.refusals, plan.install, plan.actions, plan.release) == ((), (), (), ())


def test_what_the_repository_offers_decides_the_exact_version_and_the_optional_packages() -> None:
    names = plan_of("l40s").names
    offers: dict[str, list[str]] = {name: ["580.95.05-1", "580.95.05-2", "580.105.08-1"] for name in names}
    offers[f"linux-headers-{D12}"] = ["6.1.153-1"]
    plan = plan_of("l40s", changes={"candidates": offers})
    assert plan.install == (
        f"linux-headers-{D12}",
        "nvidia-kernel-open-dkms=580.95.05-2",
        "nvidia-driver-cuda=580.95.05-2",
        "nvidia-persistenced=580.95.05-2",
    )


def test_a_package_with_an_epoch_is_of_the_wanted_version() -> None:
    there = {"version": "3:580.95.05-1.el9", "held": False}
    plan = plan_of("a100-hgx", changes={"packages": {"nvidia-driver-cuda": there}})
    assert "nvidia-driver-cuda-580.95.05" not in plan.install
    assert "nvidia-persistenced-580.95.05" in plan.install


def test_a_kernel_of_ones_own_has_its_headers_without_a_package() -> None:
    plan = plan_of("l40s", changes={"kernel": {"headers": True}})
    assert not any("headers" in package for package in plan.install)


def test_the_stream_of_the_branch_and_flavour_is_entered_once() -> None:
    plan = plan_of("a100-hgx")
    assert (plan.module_stream, plan.switch_stream) == ("580-open", True)
    assert not plan_of("a100-hgx", changes={"module_stream": "580-open"}).switch_stream
    assert plan_of("a100-hgx", "580.95.05", flavour="proprietary").module_stream == "580-dkms"
    assert plan_of("l40s").module_stream == ""


def test_holds_of_an_earlier_run_are_let_go_where_they_are_in_the_way() -> None:
    held = {
        "nvidia-dkms-570-open": {"version": "570.133.20-0ubuntu1", "held": True},
        "linux-image-generic": {"version": "6.8.0-87.88", "held": True},
    }
    own = {"version": "570.133.20", "holds": ["nvidia-dkms-570-open"]}
    plan = plan_of("h100-hgx", changes={"packages": held, "own": own})
    assert plan.refusals == ()
    assert plan.release == ("nvidia-dkms-570-open",)
    # At the version that it has to be, it stays as it is.
    assert plan_of("h100-hgx", "570.133.20", changes={"packages": held, "own": own}).release == ()


def test_a_gpu_that_is_not_in_the_table_is_said_to_be() -> None:
    devices = [
        {
            "address": "0000:01:00.0",
            "vendor": "0x10de",
            "device": "0x3040",
            "class": "0x030200",
            "numa_node": 0,
            "driver": "",
            "switch_management": False,
        }
    ]
    plan = plan_of("l40s", "580.95.05", changes={"devices": devices})
    assert plan.flavour is Flavour.OPEN
    assert "0000:01:00.0 [10de:3040] newer than this table is not in the table" in plan.notes[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_travels_as_json(name: str) -> None:
    plan = plan_of(name)
    assert set(plan.as_dict()) == {field.name for field in dataclasses.fields(Plan)}


def test_a_driver_that_is_there_is_taken_as_it_is() -> None:
    plan = plan_of("h100-vm", "", install=False)
    assert (plan.refusals, plan.packages, plan.services, plan.notes) == ((), (), (), ())
    assert plan_of("h100-vm", "580.159.04", install=False).refusals == ()


def test_a_driver_that_waits_for_a_restart_is_noted() -> None:
    newer = {"version": "580.95.05", "flavour": "open", "signer": ""}
    (note,) = plan_of("h100-hgx", "", changes={"installed": newer}, install=False).notes
    assert "the loaded module is 570.133.20 (open), the installed one 580.95.05 (open)" in note


def test_an_nvswitch_without_fabric_manager_is_noted() -> None:
    loaded = {"version": "570.133.20", "flavour": "open"}
    changes = {"loaded": loaded, "packages": {}}
    (note,) = plan_of("b200-hgx", "", changes=changes, install=False).notes
    assert "0000:05:00.0 is an NVSwitch, and no package of Fabric Manager is installed" in note
