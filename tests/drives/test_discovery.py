"""Which drives a host has, by which names, and what they are called in the inventory."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils import kvstrata_discovery as discovery
from ansible.module_utils.kvstrata_blockdev import Host

from tests.drives.samples import assembled, content, device, filesystem, member, path

EUI = "nvme-eui.0025385b71b0a1c2"
MODEL = "nvme-ACME_SSD_S1"
SPELLED = "nvme-nvme.1b36-5331-41434d45-00000001"


@pytest.mark.parametrize(
    ("names", "best"),
    [
        ([MODEL, SPELLED, EUI], EUI),
        ([SPELLED, MODEL], MODEL),
        ([MODEL, f"{MODEL}_1"], f"{MODEL}_1"),
        ([SPELLED], SPELLED),
        ([MODEL, "nvme-uuid.11111111-2222-3333-4444-555555555555"], "nvme-uuid.11111111-2222-3333-4444-555555555555"),
    ],
)
def test_the_name_that_cannot_move_to_another_namespace_is_preferred(names: list[str], best: str) -> None:
    assert min(names, key=discovery.rank) == best


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host whose devices are files, numbered by what they are called."""

    def number(self: Host, path: str) -> str:
        target = Path(self.real(path)).resolve()
        return f"259:{target.name}" if target.exists() else ""

    monkeypatch.setattr(Host, "number", number)
    by_id = tmp_path / "dev" / "disk" / "by-id"
    by_id.mkdir(parents=True)
    for kernel in ("nvme0n1", "nvme0n1p1", "nvme2n1", "nvme10n1"):
        (tmp_path / "dev" / kernel).touch()
        if not kernel.endswith("p1"):
            (tmp_path / "sys" / "block" / kernel).mkdir(parents=True)
    for name, kernel in {
        **{EUI: "nvme10n1", MODEL: "nvme10n1", "nvme-ACME_SSD_S0": "nvme0n1", "nvme-ACME_SSD_S0-part1": "nvme0n1p1"},
        **{"lvm-pv-uuid-x": "nvme0n1", "nvme-gone": "nvme99n1"},
    }.items():
        (by_id / name).symlink_to(Path("..", "..", kernel))
    return Host(sys=str(tmp_path / "sys"), dev=str(tmp_path / "dev"))


def test_each_namespace_is_found_once_in_the_order_of_its_number(host: Host) -> None:
    assert discovery.candidates(host) == [
        "/dev/disk/by-id/nvme-ACME_SSD_S0",
        "/dev/nvme2n1",  # has no name that stays; the guard refuses it and says so
        f"/dev/disk/by-id/{EUI}",
    ]


def test_blank_drives_are_numbered_from_d0() -> None:
    assert [drive.name for drive in discovery.entries([device(0), device(1)], "/m")] == ["d0", "d1"]


def test_drives_of_ours_keep_their_names_and_new_ones_get_what_is_free() -> None:
    mine = device(1, content=filesystem("kvs-d0", "ext4"))
    drives = discovery.entries([device(0), mine, device(2)], "/m")
    assert [(drive.name, drive.fstype, drive.mount) for drive in drives] == [
        ("d1", "xfs", "/m/d1"),
        ("d0", "ext4", "/m/d0"),
        ("d2", "xfs", "/m/d2"),
    ]


def test_a_second_drive_with_the_same_label_of_ours_gets_another_name() -> None:
    mine = [device(index, content=filesystem("kvs-d0")) for index in range(2)]
    assert [drive.name for drive in discovery.entries(mine, "/m")] == ["d0", "d1"]


def test_the_members_of_our_array_are_one_entry_in_their_order() -> None:
    found = [assembled(1, filesystem()), assembled(0, filesystem())]
    (drive,) = discovery.entries(found, "/m")
    assert (drive.name, drive.array, drive.devices) == ("d0", True, (path(0), path(1)))


def test_the_members_of_somebodys_array_are_entries_of_their_own() -> None:
    found = [member(index, name="host:0") for index in range(2)]
    assert [drive.devices for drive in discovery.entries(found, "/m")] == [(path(0),), (path(1),)]


def test_somebodys_label_is_no_name_for_a_drive() -> None:
    assert discovery.entries([device(0, content=filesystem("kvs-TOO LONG"))], "/m")[0].name == "d0"
    assert discovery.entries([device(0, content=content())], "/m")[0].name == "d0"
