from pathlib import Path

import pytest

from kvstrata.lab import paths
from kvstrata.lab.errors import LabError
from kvstrata.lab.releases import SharedRelease


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SharedRelease:
    monkeypatch.setenv("KVSTRATA_CACHE", str(tmp_path))
    return SharedRelease("cpu-0123abcd", "bookworm")


def complete(release: SharedRelease) -> None:
    release.make_room()
    (release.folder / ".complete").touch()


def test_the_first_node_builds_what_nobody_has_built(release: SharedRelease) -> None:
    release.make_room()
    inside = "/opt/kvstrata/releases/cpu-0123abcd"
    assert release.volume(first=True) == f"{release.folder}:{inside}"
    assert release.volume(first=False) is None


def test_no_node_writes_to_a_release_that_is_complete(release: SharedRelease) -> None:
    complete(release)
    for first in (True, False):
        volume = release.volume(first=first)
        assert volume is not None
        assert volume.endswith(":/opt/kvstrata/releases/cpu-0123abcd:O")


def test_a_complete_release_is_kept_and_everything_else_makes_room(release: SharedRelease) -> None:
    complete(release)
    release.make_room()
    assert (release.folder / ".complete").exists()

    newer = SharedRelease("cpu-4567", release.suite)
    newer.make_room()
    assert [path.name for path in (paths.releases_dir() / release.suite).iterdir()] == ["cpu-4567"]


def test_what_an_interrupted_build_left_is_removed(release: SharedRelease) -> None:
    release.make_room()
    (release.folder / "bin").mkdir()
    release.make_room()
    assert list(release.folder.iterdir()) == []


@pytest.mark.parametrize("name", ["", "../lab", "cpu/x", "CPU"])
def test_an_id_names_no_other_folder(name: str) -> None:
    with pytest.raises(LabError, match="allowed is"):
        SharedRelease(name, "bookworm")
