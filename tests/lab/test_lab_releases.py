from pathlib import Path

import pytest

from kvstrata.lab import lab, nodes, paths
from kvstrata.lab.errors import LabError
from kvstrata.lab.releases import SharedRelease
from kvstrata.lab.spec import preset
from kvstrata.lab.sshaccess import Access


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


@pytest.mark.parametrize("other", ["molecule", "molecule-b"])
@pytest.mark.parametrize("shares", [True, False])
def test_what_another_lab_builds_is_left_alone(
    release: SharedRelease, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, other: str, shares: bool
) -> None:
    built = release.folder / "bin"
    built.mkdir(parents=True)
    builder = nodes.Container(other, "m1", f"kvstrata-{other}-m1", True, (), "a", shares_release=shares)
    monkeypatch.setattr(nodes, "containers", lambda: [builder])
    monkeypatch.setattr(Access, "ensure_key", lambda _: tmp_path / "key.pub")
    mounts = lab._mounts(preset("molecule-b"), Access(tmp_path), release.id, {})
    if shares and other != "molecule-b":
        assert built.exists()
        assert {mount.release for mount in mounts.values()} == {None}
    else:
        assert not built.exists()
        assert mounts["m1"].release is not None


@pytest.mark.parametrize("name", ["", "../lab", "cpu/x", "CPU"])
def test_an_id_names_no_other_folder(name: str) -> None:
    with pytest.raises(LabError, match="allowed is"):
        SharedRelease(name, "bookworm")
