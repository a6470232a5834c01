"""kvstrata_binary, with scripts that speak as Kvrocks does, and with Kvrocks where there is one."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from kvstrata.paths import cache_dir
from tests.plugins.modules import run_module

# Knows workers and dir alone, and refuses workers over 256, in Kvrocks' own words.
SERVER = """#!/usr/bin/env python3
import sys
if sys.argv[1] == "--version":
    print("kvrocks version 2.10.1 (commit abc)")
    sys.exit()
for number, line in enumerate(sys.stdin, 1):
    name, _, value = line.strip().partition(" ")
    if name not in ("workers", "dir", "port"):
        print(f"WARNING: '{name}' at line {number} is not a valid configuration key.")
    elif name == "port" or (name == "workers" and int(value) > 256):
        print(f"Failed to load config. Error: at line #L{number}: failed to set value of field '{name}': out of range")
        sys.exit(1)
"""
GOOD = {"workers": "8", "dir": "/d0"}


def place(path: Path, text: str = SERVER) -> str:
    """Write a program; return its sha256."""
    path.write_text(text)
    path.chmod(0o755)
    return hashlib.sha256(text.encode()).hexdigest()


def check(folder: Path, sha256: str, check_mode: bool = False, **changes: Any) -> dict[str, Any]:
    args = {
        "path": str(folder / "kvrocks"),
        "staged": str(folder / "kvrocks.new"),
        "sha256": sha256,
        "version": "2.10.1",
        "configs": [GOOD],
    }
    return run_module("kvstrata_binary", {**args, **changes}, check_mode=check_mode)


def test_a_staged_binary_that_is_the_one_is_put_in_place(tmp_path: Path) -> None:
    place(tmp_path / "kvrocks", "#!/bin/sh\necho old\n")
    sha256 = place(tmp_path / "kvrocks.new")
    assert check(tmp_path, sha256)["changed"] is True
    assert (tmp_path / "kvrocks").read_text() == SERVER
    assert [path.name for path in tmp_path.iterdir()] == ["kvrocks"]
    assert check(tmp_path, sha256)["changed"] is False


@pytest.mark.parametrize(
    ("text", "changes", "why"),
    [
        (SERVER, {"sha256": "0" * 64}, "its sha256 is"),
        (SERVER, {"version": "2.17.0"}, "its version is 2.10.1; allowed: 2.17.0"),
        ("#!/bin/sh\necho redis-server 7.0\n", {}, "it is no Kvrocks that runs here; --version says: redis-server 7.0"),
        ("no program", {}, "it does not run here: "),
        (
            SERVER,
            {"configs": [GOOD, {**GOOD, "tls-port": "6766"}]},
            "it does not know tls-port, and would go on without",
        ),
        (SERVER, {"configs": [{**GOOD, "workers": "257"}]}, "'workers 257' is refused: failed to set value of field"),
    ],
)
def test_any_other_is_refused_and_removed_and_the_one_in_place_stays(
    tmp_path: Path, text: str, changes: dict[str, Any], why: str
) -> None:
    place(tmp_path / "kvrocks", "#!/bin/sh\necho old\n")
    sha256 = place(tmp_path / "kvrocks.new", text)
    result = check(tmp_path, **{"sha256": sha256, **changes})
    assert result["failed"]
    assert "is refused, and nothing was changed: " in result["msg"]
    assert why in result["msg"]
    assert (tmp_path / "kvrocks").read_text() == "#!/bin/sh\necho old\n"
    assert [path.name for path in tmp_path.iterdir()] == ["kvrocks"]


def test_the_binary_in_place_is_looked_at_as_well_and_never_removed(tmp_path: Path) -> None:
    sha256 = place(tmp_path / "kvrocks")
    assert "its version is" in check(tmp_path, sha256, version="1.0")["msg"]
    assert "its sha256 is" in check(tmp_path, "0" * 64)["msg"]
    assert (tmp_path / "kvrocks").exists()


def test_check_mode_moves_nothing(tmp_path: Path) -> None:
    sha256 = place(tmp_path / "kvrocks.new")
    assert check(tmp_path, sha256, check_mode=True)["changed"] is True
    assert [path.name for path in tmp_path.iterdir()] == ["kvrocks.new"]


def test_check_mode_on_a_node_without_a_binary_says_that_it_checked_nothing(tmp_path: Path) -> None:
    result = check(tmp_path, "0" * 64, check_mode=True)
    assert result["msg"].startswith("NOT CHECKED in check mode")


@pytest.mark.skipif(not (cache_dir() / "bin" / "kvrocks").is_file(), reason="no Kvrocks at hand")
def test_a_real_kvrocks_is_read_and_its_unknown_directives_found(tmp_path: Path) -> None:
    shutil.copy(cache_dir() / "bin" / "kvrocks", tmp_path / "kvrocks.new")
    sha256 = hashlib.sha256((tmp_path / "kvrocks.new").read_bytes()).hexdigest()
    assert check(tmp_path, sha256, version="")["changed"] is True
    result = check(tmp_path, sha256, version="", configs=[{**GOOD, "rocksdb.partition_filters": "yes"}])
    assert "it does not know rocksdb.partition_filters" in result["msg"]
