"""Downloading a wheelhouse once, with a real pip and wheels that the test makes; no network is asked."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kvstrata.artifacts.lock import Wheelhouse
from kvstrata.artifacts.wheelhouse import DownloadError, digest, ensure, folder, is_complete, pip_download

Runs = list[list[str]]


def make_wheel(where: Path, tag: str = "py3-none-any") -> Path:
    """Write the smallest wheel that pip downloads."""
    where.mkdir(parents=True, exist_ok=True)
    path = where / f"kvs_tiny-1.0-{tag}.whl"
    info = "kvs_tiny-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("kvs_tiny.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: kvs-tiny\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def house_of(tmp_path: Path, checksum: str, python: str = "3.11", extra_index: str | None = None) -> Wheelhouse:
    lock = tmp_path / "lock.txt"
    lock.write_text(f"kvs-tiny==1.0 --hash=sha256:{checksum}\n")
    return Wheelhouse("cpu", lock, python, ("manylinux_2_28",), extra_index)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Let pip see one folder of wheels, and neither an index nor this machine's pip configuration."""

    def see(wheels: Path) -> None:
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))

    return see


@pytest.fixture
def fake_pip(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Runs]:
    """Replace pip: each run puts a file into its destination, and ends with the next of the exit codes."""

    def replace_pip(*codes: int | BaseException) -> Runs:
        commands: Runs = []
        left = iter(codes)

        def run(command: Sequence[str], *, check: bool) -> subprocess.CompletedProcess[bytes]:
            commands.append(list(command))
            Path(command[-1], f"wheel-{len(commands)}.whl").touch()
            outcome = next(left)
            if isinstance(outcome, BaseException):
                raise outcome
            return subprocess.CompletedProcess(command, outcome)

        monkeypatch.setattr(subprocess, "run", run)
        return commands

    return replace_pip


def test_a_real_pip_downloads_for_a_python_that_is_not_this_one(tmp_path: Path, only: Callable[[Path], None]) -> None:
    other = "3.11" if sys.version_info[:2] != (3, 11) else "3.10"
    tag = "cp" + other.replace(".", "")
    wheel = make_wheel(tmp_path / "wheels", f"{tag}-{tag}-manylinux_2_28_{platform.machine()}")
    only(wheel.parent)
    house = house_of(tmp_path, sha256(wheel), python=other)
    assert not is_complete(house, tmp_path / "cache")
    target, downloaded = ensure(house, tmp_path / "cache")
    assert downloaded
    assert is_complete(house, tmp_path / "cache")
    assert target == tmp_path / "cache" / "wheelhouse" / f"cpu-{digest(house)}"
    assert sorted(path.name for path in target.iterdir()) == [".complete", wheel.name]


def test_a_real_pip_refuses_a_wheel_with_another_checksum(tmp_path: Path, only: Callable[[Path], None]) -> None:
    only(make_wheel(tmp_path / "wheels").parent)
    house = house_of(tmp_path, "0" * 64)
    with pytest.raises(DownloadError):
        ensure(house, tmp_path / "cache")
    assert not folder(house, tmp_path / "cache").exists()


def test_a_second_call_downloads_nothing(tmp_path: Path, fake_pip: Callable[..., Runs]) -> None:
    commands = fake_pip(0)
    house = house_of(tmp_path, "0" * 64)
    first = ensure(house, tmp_path)
    assert ensure(house, tmp_path) == (first[0], False)
    assert len(commands) == 1


def test_an_interrupted_download_leaves_no_folder_and_is_taken_up_again(
    tmp_path: Path, fake_pip: Callable[..., Runs]
) -> None:
    fake_pip(KeyboardInterrupt(), 0)
    house = house_of(tmp_path, "0" * 64)
    with pytest.raises(KeyboardInterrupt):
        ensure(house, tmp_path)
    assert not folder(house, tmp_path).exists()
    assert not is_complete(house, tmp_path)
    assert ensure(house, tmp_path) == (folder(house, tmp_path), True)
    assert is_complete(house, tmp_path)


def test_a_folder_that_is_not_complete_is_replaced(tmp_path: Path, fake_pip: Callable[..., Runs]) -> None:
    fake_pip(0)
    house = house_of(tmp_path, "0" * 64)
    folder(house, tmp_path).mkdir(parents=True)
    (folder(house, tmp_path) / "leftover").touch()
    target, _ = ensure(house, tmp_path)
    assert sorted(path.name for path in target.iterdir()) == [".complete", "wheel-1.whl"]


EXTRA = "https://wheels.example/cpu"


def test_the_second_index_is_not_asked_when_the_first_has_everything(
    tmp_path: Path, fake_pip: Callable[..., Runs]
) -> None:
    commands = fake_pip(0)
    ensure(house_of(tmp_path, "0" * 64, extra_index=EXTRA), tmp_path)
    assert len(commands) == 1
    assert EXTRA not in commands[0]


def test_the_second_index_is_asked_when_the_first_failed(tmp_path: Path, fake_pip: Callable[..., Runs]) -> None:
    commands = fake_pip(1, 0)
    house = house_of(tmp_path, "0" * 64, extra_index=EXTRA)
    ensure(house, tmp_path)
    assert [EXTRA in command for command in commands] == [False, True]
    assert commands[1][commands[1].index(EXTRA) - 1] == "--extra-index-url"
    assert is_complete(house, tmp_path)


def test_when_both_fail_the_message_names_both_and_the_lock(tmp_path: Path, fake_pip: Callable[..., Runs]) -> None:
    commands = fake_pip(1, 1)
    house = house_of(tmp_path, "0" * 64, extra_index=EXTRA)
    with pytest.raises(DownloadError, match=f"cpu: lock.txt .* asked: the configured package index and {EXTRA}"):
        ensure(house, tmp_path)
    assert len(commands) == 2
    assert not folder(house, tmp_path).exists()


def test_without_a_second_index_only_the_first_is_named(tmp_path: Path, fake_pip: Callable[..., Runs]) -> None:
    fake_pip(1)
    with pytest.raises(DownloadError, match=r"asked: the configured package index$"):
        ensure(house_of(tmp_path, "0" * 64), tmp_path)


def test_another_lock_is_another_folder(tmp_path: Path) -> None:
    house = house_of(tmp_path, "0" * 64)
    before = folder(house, tmp_path)
    assert folder(replace(house, extra_index=EXTRA), tmp_path) == before
    house.lock.write_text(house.lock.read_text() + "# more\n")
    assert folder(house, tmp_path) != before


def test_pip_is_told_the_nodes_python_and_to_check_every_wheel(tmp_path: Path) -> None:
    command = pip_download(house_of(tmp_path, "0" * 64, python="3.10"), tmp_path / "to", [])
    assert {"--require-hashes", "--only-binary=:all:", "--no-deps"} <= set(command)
    assert command[command.index("--python-version") + 1] == "3.10"
    assert [command[i + 1] for i, word in enumerate(command) if word == "--abi"] == ["cp310", "abi3", "none"]
    assert command[command.index("--platform") + 1] == f"manylinux_2_28_{platform.machine()}"
