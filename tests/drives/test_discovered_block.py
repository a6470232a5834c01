"""The block for the inventory, from what was found."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kvstrata.drives.discovered import block, store_gib
from kvstrata.paths import PROJECT
from kvstrata.preflight.drives import judge_drives
from kvstrata.preflight.variables import mistyped, site_specs

GIB = 1 << 30


def found(name: str = "d0", **changes: Any) -> dict[str, Any]:
    device = {
        **{"path": f"/dev/disk/by-id/nvme-eui.{name}", "kernel": "nvme0n1", "serial": "S1", "model": "ACME SSD"},
        **{"size": 3576 * GIB + 1, "numa_node": 1},
    }
    fields = {"name": name, "state": "blank", "array": False, "refusals": [], "devices": [device]}
    return {**fields, **{key: value for key, value in changes.items() if key in fields}} | {
        "devices": [
            {**each, **{key: value for key, value in changes.items() if key in device}}
            for each in changes.get("devices", [device])
        ]
    }


def test_a_drive_is_named_with_what_must_stay_true_of_it() -> None:
    assert yaml.safe_load(block([found()])) == {
        "kvstrata_drives": [
            {
                **{"name": "d0", "device": "/dev/disk/by-id/nvme-eui.d0", "serial": "S1", "size_gib": 3576},
                **{"numa_node": 1, "store_gib": 1700},
            }
        ]
    }


def test_what_is_printed_is_accepted_by_preflight() -> None:
    array = found("d1", array=True, devices=[*found("a")["devices"], *found("b")["devices"]])
    drives = yaml.safe_load(block([found(), array]))["kvstrata_drives"]
    specs = {"kvstrata_drives": site_specs(PROJECT)["kvstrata_drives"]}
    assert judge_drives("node1", drives) == []
    assert mistyped("node1", {"kvstrata_drives": drives}, specs) == []


def test_an_array_has_all_its_devices_and_serials() -> None:
    array = found(array=True, devices=[*found("a")["devices"], *found("b")["devices"]])
    (drive,) = yaml.safe_load(block([array]))["kvstrata_drives"]
    assert drive["devices"] == ["/dev/disk/by-id/nvme-eui.a", "/dev/disk/by-id/nvme-eui.b"]
    assert drive["serials"] == ["S1", "S1"]
    assert (drive["size_gib"], drive["store_gib"]) == (3576, 3400)


def test_a_drive_that_is_refused_is_a_comment_below_its_reasons() -> None:
    refusals = [{"reason": "system_disk", "seen": "/ is on nvme0n1p2"}, {"reason": "partition", "seen": "it holds p1"}]
    text = block([found(), found("d1", state="refused", refusals=refusals)])
    assert [drive["name"] for drive in yaml.safe_load(text)["kvstrata_drives"]] == ["d0"]
    assert "  # REFUSED system_disk: / is on nvme0n1p2\n  # REFUSED partition: it holds p1\n  # - name: d1\n" in text
    # Without its marks it is an entry again.
    assert "  #   device: /dev/disk/by-id/nvme-eui.d1\n" in text


def test_where_all_are_refused_the_list_is_empty() -> None:
    text = block([found(refusals=[{"reason": "mounted", "seen": "at /mnt"}])])
    assert yaml.safe_load(text) == {"kvstrata_drives": []}


def test_without_a_drive_it_says_so() -> None:
    assert block([]) == "# No NVMe drive was found.\nkvstrata_drives: []\n"


def test_what_a_drive_does_not_tell_is_left_out() -> None:
    (drive,) = yaml.safe_load(block([found(serial="", numa_node=-1)]))["kvstrata_drives"]
    assert set(drive) == {"name", "device", "size_gib", "store_gib"}


@pytest.mark.parametrize(("gib", "proposed"), [(3576, 1700), (7153, 3400), (894, 420), (100, 48), (4, 1), (1, 1)])
def test_a_store_is_proposed_under_half_of_its_drive(gib: int, proposed: int) -> None:
    assert store_gib(gib * GIB) == proposed
    assert proposed * 2 < gib or proposed == 1
