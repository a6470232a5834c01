"""Folders of packages in a bundle: packed the same each time, unpacked as they were, without other GPUs' code."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kvstrata.bundle import cli, gpucode, standalone, trees
from kvstrata.bundle.standalone import BundleError

PTX, CUBIN = 1, 2


def entry(kind: int, architecture: int, payload: bytes) -> bytes:
    head = struct.pack("<HHIQ", kind, 1, 64, len(payload)) + bytes(12) + struct.pack("<I", architecture)
    return head + bytes(64 - len(head)) + payload


def container(*entries: bytes) -> bytes:
    return b"\x50\xed\x55\xba\x01\x00\x10\x00" + struct.pack("<Q", sum(map(len, entries))) + b"".join(entries)


def library(*containers: bytes) -> bytes:
    return b"\x7fELF" + b"host code" * 200_000 + b"between".join(containers) + b"the end"


def test_code_of_other_gpus_is_blanked_and_everything_else_stays_where_it_is() -> None:
    kept, other, ptx = b"hopper" * 50, b"ampere" * 70, b"text" * 30
    before = library(container(entry(CUBIN, 80, other), entry(CUBIN, 90, kept), entry(PTX, 90, ptx)))
    after = bytearray(before)
    found = gpucode.prune(after, 90)
    assert found == gpucode.Pruned(containers=1, own=1, blanked_bytes=len(other) + len(ptx))
    assert bytes(after) == before.replace(other, bytes(len(other))).replace(ptx, bytes(len(ptx)))
    again = bytearray(after)
    gpucode.prune(again, 90)
    assert again == after


def test_where_a_gpu_has_no_code_of_its_own_the_ptx_that_can_become_it_stays() -> None:
    old, new = b"ptx for all" * 20, b"ptx of the future" * 20
    cubin = b"blackwell" * 30
    data = bytearray(library(container(entry(PTX, 80, old), entry(PTX, 120, new), entry(CUBIN, 100, cubin))))
    found = gpucode.prune(data, 90)
    assert (found.containers, found.own) == (1, 0)
    assert old in data
    assert new not in data
    assert cubin not in data


def test_each_container_is_judged_alone_and_what_is_none_stays() -> None:
    one, two = b"of the first" * 20, b"of the second" * 20
    broken = b"\x50\xed\x55\xba\x01\x00\x10\x00" + struct.pack("<Q", 1 << 40) + entry(CUBIN, 80, b"not a container")
    data = bytearray(library(container(entry(CUBIN, 80, one)), container(entry(CUBIN, 90, two)), broken))
    found = gpucode.prune(data, 90)
    assert found.containers == 2
    assert (one in data, two in data, b"not a container" in data) == (False, True, True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    (folder / "package" / "__pycache__").mkdir(parents=True)
    (folder / "package" / "a.py").write_text("A = 1\n")
    (folder / "package" / "__pycache__" / "a.pyc").write_text("stale")
    (folder / "program").write_text("#!/bin/sh\n")
    (folder / "program").chmod(0o755)
    (folder / "link").symlink_to("package/a.py")
    os.link(folder / "package" / "a.py", folder / "second-name")
    (folder / "lib.so").write_bytes(
        library(container(entry(CUBIN, 80, b"ampere" * 99), entry(CUBIN, 90, b"hopper" * 99)))
    )
    return folder


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_tree_comes_out_as_it_went_in(tree: Path, tmp_path: Path) -> None:
    packed = trees.pack(tree, tmp_path / "cache", None)
    assert standalone.unpack_tree(packed.folder, tmp_path / "out") == len(trees.archives(packed)) > 0
    assert contents(tmp_path / "out") == contents(tree)
    assert (tmp_path / "out" / "link").is_symlink()
    assert (tmp_path / "out" / "program").stat().st_mode & 0o777 == 0o755
    assert not (tmp_path / "out" / "package" / "__pycache__").exists()


def test_a_folder_that_another_worker_makes_first_is_no_failure(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "package" / "lib").mkdir()
    (tree / "package" / "lib" / "b.py").write_text("B = 1\n")
    packed = trees.pack(tree, tmp_path / "cache", None)
    make = os.mkdir

    def make_second(path: str | Path, mode: int = 0o777) -> None:
        make(path, mode)  # The other worker, after this one looked.
        make(path, mode)

    # Threads see what is patched here, however processes are started.
    monkeypatch.setattr(standalone, "ProcessPoolExecutor", ThreadPoolExecutor)
    monkeypatch.setattr(os, "mkdir", make_second)
    standalone.unpack_tree(packed.folder, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tree)


def test_with_an_architecture_only_libraries_are_other_and_the_tree_itself_is_not_touched(
    tree: Path, tmp_path: Path
) -> None:
    before = contents(tree)
    packed = trees.pack(tree, tmp_path / "cache", 90)
    standalone.unpack_tree(packed.folder, tmp_path / "out")
    after = contents(tmp_path / "out")
    assert contents(tree) == before
    assert [name for name in before if before[name] != after[name]] == ["lib.so"]
    assert packed.about == {
        "files": 5,
        "bytes": packed.about["bytes"],
        "gpu_arch": 90,
        "containers": 1,
        "own": 1,
        "blanked_bytes": 6 * 99,
    }


def test_the_same_tree_gives_the_same_bytes_and_is_packed_once(tree: Path, tmp_path: Path) -> None:
    one = trees.pack(tree, tmp_path / "one", 90)
    stamp = (one.folder / "0000.tar.gz").stat().st_mtime_ns
    assert trees.pack(tree, tmp_path / "one", 90).folder == one.folder
    assert (one.folder / "0000.tar.gz").stat().st_mtime_ns == stamp
    other = trees.pack(tree, tmp_path / "two", 90)
    assert [file.read_bytes() for file in trees.archives(one)] == [file.read_bytes() for file in trees.archives(other)]
    (tree / "package" / "a.py").write_text("A = 2\n")
    assert trees.pack(tree, tmp_path / "one", 90).folder != one.folder


def test_what_cannot_be_carried_is_refused(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        trees.pack(tmp_path / "none", tmp_path / "cache", None)
    (tree / "out").symlink_to("/etc/hostname")
    with pytest.raises(BundleError, match="allowed: links within"):
        trees.pack(tree, tmp_path / "cache", None)
    with pytest.raises(BundleError, match="allowed: DEST/trees/NAME"):
        standalone.unpack_tree(tmp_path, tmp_path / "new")


def test_a_tree_is_not_unpacked_over_something(tree: Path, tmp_path: Path) -> None:
    packed = trees.pack(tree, tmp_path / "cache", None)
    with pytest.raises(BundleError, match="is not empty"):
        standalone.unpack_tree(packed.folder, tree)


def test_an_archive_that_leads_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    with tarfile.open(tmp_path / "bad" / "0000.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../outside"))
    with pytest.raises(BundleError, match=r"0000\.tar\.gz.*outside"):
        standalone.unpack_tree(tmp_path / "bad", tmp_path / "new")
    assert not (tmp_path / "outside").exists()


def test_a_bundle_with_a_tree_alone_arrives_with_nothing_but_python(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVSTRATA_CACHE", str(tmp_path / "cache"))
    words = [
        "make",
        str(tmp_path / "b"),
        "--tree",
        str(tree),
        "--gpu-arch",
        "90",
        "--no-controller",
        "--part-size",
        "2M",
    ]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0, done.output
    assert "NOT in it: wheels of the nodes: no --wheelhouse" in done.output
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert manifest["holds"]["trees"]["site"]["blanked_bytes"] == 6 * 99
    program = [sys.executable, "-I", str(tmp_path / "b" / standalone.PROGRAM)]
    for command in (
        ["unpack", str(tmp_path / "b"), str(tmp_path / "dest")],
        ["tree", str(tmp_path / "dest" / "trees" / "site"), str(tmp_path / "out")],
    ):
        subprocess.run([*program, *command], check=True, capture_output=True)
    assert set(contents(tmp_path / "out")) == set(contents(tree))


def test_an_architecture_without_a_tree_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, ["make", str(tmp_path / "b"), "--wheelhouse", "cpu", "--gpu-arch", "90"])
    assert done.exit_code == 1
    assert "--gpu-arch without --tree" in done.output
