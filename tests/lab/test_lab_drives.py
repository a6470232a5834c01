from pathlib import Path

import pytest

from kvstrata.lab import drives, shell
from kvstrata.lab.drives import Loop, below, ensure_image, parse_losetup
from kvstrata.lab.errors import LabError

RECORDED = (Path(__file__).parent / "fixtures" / "losetup.json").read_text()
DRIVES = Path("/cache/lab/lab/drives")


def test_losetup_output_is_read_with_deleted_files_marked() -> None:
    assert parse_losetup(RECORDED)[:2] == [
        Loop("/dev/loop1", DRIVES / "node1-nvme1.img", deleted=False),
        Loop("/dev/loop0", DRIVES / "node1-nvme0.img", deleted=True),
    ]


def test_no_loop_devices_is_no_output_at_all() -> None:
    assert parse_losetup("") == []


def test_only_the_labs_own_loop_devices_are_its_own() -> None:
    own = below(parse_losetup(RECORDED), DRIVES)
    assert [loop.device for loop in own] == ["/dev/loop1", "/dev/loop0"]
    assert below(own, Path("/cache/lab/lab/drives2")) == []


def test_a_drive_image_is_sparse_and_kept_when_made_again(tmp_path: Path) -> None:
    image = tmp_path / "drives" / "node1-nvme0.img"
    ensure_image(image, 2)
    assert image.stat().st_size == 2 * 2**30
    assert image.stat().st_blocks == 0
    with image.open("r+b") as file:
        file.write(b"data")
    ensure_image(image, 2)
    assert image.open("rb").read(4) == b"data"


def test_a_drive_image_of_another_size_is_refused(tmp_path: Path) -> None:
    image = tmp_path / "d.img"
    ensure_image(image, 1)
    with pytest.raises(LabError, match=r"d\.img is 1 GiB, asked for are 2.*lab down"):
        ensure_image(image, 2)


class FakeLosetup:
    """Stands for losetup: a table of attached files."""

    def __init__(self, table: dict[str, str]) -> None:
        self.table = table

    def run(self, argv: tuple[str, ...], **_: object) -> str:
        if "--list" in argv:
            entries = ",".join(f'{{"name":"{d}","back-file":"{f}"}}' for d, f in self.table.items())
            return f'{{"loopdevices":[{entries}]}}' if self.table else ""
        if "--detach" in argv:
            del self.table[argv[-1]]
            return ""
        device = "/dev/loop9" if "--find" in argv else argv[-2]
        self.table[device] = argv[-1]
        return device + "\n"


def test_an_attached_drive_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "run", FakeLosetup({"/dev/loop3": "/d.img"}).run)
    assert drives.attach(Path("/d.img")) == "/dev/loop3"


def test_a_stale_loop_of_a_removed_file_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    losetup = FakeLosetup({"/dev/loop3": "/d.img (deleted)"})
    monkeypatch.setattr(shell, "run", losetup.run)
    assert drives.attach(Path("/d.img")) == "/dev/loop9"
    assert losetup.table == {"/dev/loop9": "/d.img"}


def test_a_drive_gets_the_device_its_node_knows_when_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "run", FakeLosetup({}).run)
    # /dev/null stands for a loop device that exists.
    assert drives.attach(Path("/d.img"), wanted="/dev/null") == "/dev/null"


def test_a_drive_gets_another_device_when_its_own_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "run", FakeLosetup({"/dev/null": "/other.img"}).run)
    assert drives.attach(Path("/d.img"), wanted="/dev/null") == "/dev/loop9"
