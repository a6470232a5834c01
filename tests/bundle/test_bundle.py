"""Making, checking and unpacking bundles: round trips, every kind of damage, and runs that were interrupted."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvstrata.bundle import standalone
from kvstrata.bundle import write as writing
from kvstrata.bundle.sources import Source, checked
from kvstrata.bundle.standalone import MANIFEST, PROGRAM, BundleError, Entry, unpack, unsafe, verify
from kvstrata.bundle.write import PROGRESS, SMALLEST_PART, write

PART = SMALLEST_PART
CONTENT = {
    "cache/bin/kvrocks": (b"\x7fELF" + bytes(range(256)) * 9000, 0o755),
    "cache/wheelhouse/cpu-1/.complete": (b"", 0o644),
    "cache/wheelhouse/cpu-1/big.whl": (b"wheel" * 300_000, 0o644),
    "project/secret.yml": (b"word\n", 0o600),
    "project/tail/empty": (b"", 0o640),
}


@pytest.fixture
def files(tmp_path: Path) -> list[Source]:
    found = []
    for path, (content, mode) in CONTENT.items():
        file = tmp_path / "source" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(mode)
        found.append(Source(path, file))
    return checked(found)


@pytest.fixture
def bundle(tmp_path: Path, files: list[Source]) -> Path:
    write(tmp_path / "bundle", files, PART, {"holds": {}}, quiet)
    return tmp_path / "bundle"


def quiet(line: str) -> None:
    pass


def parts_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("part.*"))


def rewrite(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((bundle / MANIFEST).read_text())
    change(document)
    (bundle / MANIFEST).write_text(json.dumps(document))


def assert_unpacked(dest: Path) -> None:
    found = {path.relative_to(dest).as_posix(): path for path in dest.rglob("*") if path.is_file()}
    assert {name: (path.read_bytes(), path.stat().st_mode & 0o777) for name, path in found.items()} == CONTENT


def test_what_is_unpacked_is_what_was_put_in_with_its_modes(bundle: Path, tmp_path: Path) -> None:
    assert parts_of(bundle) == ["part.0000", "part.0001", "part.0002", "part.0003"]
    assert {path.stat().st_size for path in bundle.glob("part.000[012]")} == {PART}
    before = os.umask(0o077)
    try:
        unpack(bundle, tmp_path / "dest", say=quiet)
    finally:
        os.umask(before)
    assert_unpacked(tmp_path / "dest")


def test_the_program_in_the_bundle_needs_nothing_but_python(bundle: Path, tmp_path: Path) -> None:
    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        # Isolated, without site-packages: neither kvstrata nor anything that is installed can be imported.
        command = [sys.executable, "-I", "-S", str(bundle / PROGRAM), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    digest = hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()
    done = run("verify", bundle, "--expect", digest)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"5 files, 3804009 bytes in 4 parts: all as manifest.json says, whose sha256 is {digest}" in done.stdout
    done = run("unpack", bundle, tmp_path / "dest")
    assert (done.returncode, done.stderr) == (0, "")
    assert_unpacked(tmp_path / "dest")
    (bundle / "part.0001").unlink()
    done = run("unpack", bundle, tmp_path / "other")
    assert (done.returncode, done.stderr) == (1, f"{PROGRAM}: part.0001 is missing\n")
    assert not (tmp_path / "other").exists()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: flip(folder / "part.0002"), r"^part\.0002 is damaged: sha256 is "),
        (lambda folder: (folder / "part.0000").unlink(), r"^part\.0000 is missing$"),
        (lambda folder: os.truncate(folder / "part.0003", 5), r"^part\.0003 has 5 bytes, 658281 is right$"),
        (lambda folder: (folder / "part.0004").write_text("x"), r"^part\.0004 is not of this bundle"),
        (lambda folder: (folder / "notes.txt").write_text("x"), r"^notes\.txt is not of this bundle"),
        (lambda folder: (folder / MANIFEST).unlink(), r"manifest\.json cannot be read"),
        (lambda folder: (folder / MANIFEST).write_text("{"), r"manifest\.json is damaged"),
        (lambda folder: (folder / MANIFEST).write_text("[]"), r"manifest\.json is damaged"),
        (lambda folder: rewrite(folder, lambda d: d.update(schema="other/1")), r"schema is 'other/1', allowed is"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(
    bundle: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(bundle)
    with pytest.raises(BundleError, match=message):
        unpack(bundle, tmp_path / "dest", say=quiet)
    assert not (tmp_path / "dest").exists()


def test_every_wrong_part_is_named(bundle: Path) -> None:
    flip(bundle / "part.0000")
    (bundle / "part.0001").unlink()
    flip(bundle / "part.0003")
    with pytest.raises(BundleError) as refusal:
        verify(bundle)
    assert [line.split(" ")[0] for line in str(refusal.value).splitlines()] == ["part.0001", "part.0000", "part.0003"]


def test_two_parts_that_changed_places_are_found(bundle: Path) -> None:
    (bundle / "part.0000").rename(bundle / "x")
    (bundle / "part.0001").rename(bundle / "part.0000")
    (bundle / "x").rename(bundle / "part.0001")
    with pytest.raises(BundleError, match=r"part\.0000 is damaged[^\n]*\npart\.0001 is damaged"):
        verify(bundle)


def test_a_manifest_whose_files_do_not_fit_its_parts_is_refused(bundle: Path) -> None:
    def swap(document: dict[str, Any]) -> None:
        document["files"][3]["sha256"] = "0" * 64

    rewrite(bundle, swap)
    with pytest.raises(BundleError, match=r"project/secret\.yml: sha256 is .*, manifest\.json says 0000"):
        verify(bundle)
    rewrite(bundle, lambda document: document["files"].pop())
    rewrite(bundle, lambda document: document["files"].pop())
    with pytest.raises(BundleError, match=r"the parts have 3804009 bytes, the files 3804004"):
        verify(bundle)


def test_a_manifest_of_somebody_else_is_refused_where_one_is_expected(bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json: sha256 is [0-9a-f]{64}, expected is 00"):
        verify(bundle, "00")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../outside", "has an empty segment"),
        ("a/../../outside", "has an empty segment"),
        ("/etc/passwd", "is absolute"),
        ("a//b", "has an empty segment"),
        ("./a", "has an empty segment"),
        ("", "has an empty segment"),
        ("a\\..\\b", "has a backslash"),
        ("a\nb", "has a backslash or a control character"),
        ("a.bundle-partial", "ends with .bundle-partial"),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(bundle: Path, tmp_path: Path, path: str, reason: str) -> None:
    assert reason in unsafe(path)
    rewrite(bundle, lambda document: document["files"][0].update(path=path))
    with pytest.raises(BundleError, match=reason.split(" ")[1]):
        unpack(bundle, tmp_path / "dest", say=quiet)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["bundle", "source"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "project/tail"}, "'project/tail' is a file and a folder"),
        ({"path": "project/secret.yml"}, "is there twice"),
        ({"mode": "4755"}, "has mode 4755"),
        ({"sha256": "zz"}, "has no size and sha256"),
        ({"size": -1}, "has no size and sha256"),
        ({"mode": "rwx"}, "is damaged"),
    ],
)
def test_a_manifest_that_is_not_as_it_must_be_is_refused(bundle: Path, change: dict[str, Any], message: str) -> None:
    rewrite(bundle, lambda document: document["files"][0].update(change))
    with pytest.raises(BundleError, match=message):
        verify(bundle)


def test_a_part_with_another_name_is_refused_before_it_is_read(bundle: Path) -> None:
    rewrite(bundle, lambda document: document["parts"][0].update(name="../../etc/shadow"))
    with pytest.raises(BundleError, match=r"part 0 is called '\.\./\.\./etc/shadow', allowed is part\.0000"):
        verify(bundle)


def test_a_link_in_the_way_is_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "dest").mkdir()
    (tmp_path / "dest" / "cache").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="cache is a link or a file"):
        unpack(bundle, tmp_path / "dest", say=quiet)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_nothing_is_overwritten_and_nothing_else_written_then(bundle: Path, tmp_path: Path) -> None:
    mine = tmp_path / "dest" / "project" / "secret.yml"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine\n")
    with pytest.raises(BundleError, match=r"secret\.yml is there with other content"):
        unpack(bundle, tmp_path / "dest", say=quiet)
    assert [path for path in (tmp_path / "dest").rglob("*") if path.is_file()] == [mine]
    mine.unlink()
    mine.symlink_to("/etc/hostname")
    with pytest.raises(BundleError, match=r"is no regular file"):
        unpack(bundle, tmp_path / "dest", say=quiet)


def test_an_interrupted_unpacking_is_repeated(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dest, name = tmp_path / "dest", standalone._name

    def fail(partial: Path, path: Path) -> None:
        if path.name == "secret.yml":
            raise KeyboardInterrupt
        name(partial, path)

    monkeypatch.setattr(standalone, "_name", fail)
    with pytest.raises(KeyboardInterrupt):
        unpack(bundle, dest, say=quiet)
    assert not (dest / "project" / "secret.yml").exists()
    monkeypatch.setattr(standalone, "_name", name)
    said: list[str] = []
    unpack(bundle, dest, say=said.append)
    assert said == ["2 files written, 3 were there already"]
    assert_unpacked(dest)


def test_a_file_that_becomes_wrong_between_check_and_writing_gets_no_name(tmp_path: Path) -> None:
    entry = Entry("a", 1, "0" * 64, 0o644)
    with pytest.raises(BundleError, match="a: sha256 is"), standalone._writer(tmp_path, entry) as receive:
        receive(b"x")
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_refused(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(BundleError, match="3804009 bytes are to be written, 1000 are free"):
        unpack(bundle, tmp_path / "dest", say=quiet)


# --- make ---


def test_an_interrupted_make_keeps_the_parts_that_are_whole(
    tmp_path: Path, files: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real = tmp_path / "bundle", writing._write_part

    def fail(where: Path, name: str, blocks: Any) -> Any:
        if name == "part.0002":
            (where / "part.0002.bundle-partial").write_bytes(b"half")
            raise KeyboardInterrupt
        return real(where, name, blocks)

    monkeypatch.setattr(writing, "_write_part", fail)
    with pytest.raises(KeyboardInterrupt):
        write(folder, files, PART, {}, quiet)
    assert not (folder / MANIFEST).exists()
    flip(folder / "part.0001")
    monkeypatch.setattr(writing, "_write_part", real)
    said: list[str] = []
    write(folder, files, PART, {}, said.append)
    assert [line.split(":")[0] for line in said if line.startswith("part")] == ["part.0001", "part.0002", "part.0003"]
    assert not (folder / PROGRESS).exists()
    verify(folder)


def test_an_unfinished_bundle_of_other_files_is_not_taken_up(tmp_path: Path, files: list[Source]) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / PROGRESS).write_text(json.dumps({"plan": "0" * 64, "parts": []}))
    with pytest.raises(BundleError, match="holds an unfinished bundle of other files or parts"):
        write(folder, files, PART, {}, quiet)
    (folder / PROGRESS).write_text("{")
    with pytest.raises(BundleError, match="cannot be read"):
        write(folder, files, PART, {}, quiet)


def test_a_folder_with_something_in_it_is_refused(bundle: Path, tmp_path: Path, files: list[Source]) -> None:
    with pytest.raises(BundleError, match=r"holds a whole bundle .*; allowed: a new or empty folder"):
        write(bundle, files, PART, {}, quiet)
    with pytest.raises(BundleError, match=r"holds no bundle \(bundle, source, "):
        write(files[0].file.parents[3], files, PART, {}, quiet)


def test_a_file_that_changes_while_it_is_read_is_an_error(
    tmp_path: Path, files: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = writing._room

    def change(folder: Path, needed: int) -> None:
        real(folder, needed)
        flip(files[0].file)

    monkeypatch.setattr(writing, "_room", change)
    with pytest.raises(BundleError, match=r"cache/bin/kvrocks: sha256 is .*\na file changed while this ran"):
        write(tmp_path / "bundle", files, PART, {}, quiet)
    assert not (tmp_path / "bundle" / MANIFEST).exists()


def test_parts_that_are_too_small_are_refused(tmp_path: Path, files: list[Source]) -> None:
    with pytest.raises(BundleError, match="a part of 1000 bytes; allowed: 1048576 or more"):
        write(tmp_path / "bundle", files, 1000, {}, quiet)
    assert not (tmp_path / "bundle").exists()
