"""Host keys from known_hosts files, as OpenSSH writes them."""

from __future__ import annotations

import os
from pathlib import Path

import paramiko
import pytest

from kvstrata.verify.known_hosts import known_hosts

KEY, OTHER = paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate()


def line(names: str, key: paramiko.PKey = KEY) -> str:
    return f"{names} {key.get_name()} {key.get_base64()}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "known_hosts"


def keys(file: Path, name: str) -> list[paramiko.PKey]:
    return known_hosts(file).keys(name)


def test_a_host_is_found_by_each_of_its_names(file: Path) -> None:
    file.write_text("# comment\n\n" + line("node1,10.0.0.1") + line("[node1]:2222", OTHER))
    assert keys(file, "node1") == keys(file, "10.0.0.1") == [KEY]
    assert keys(file, "[node1]:2222") == [OTHER]
    assert keys(file, "node") == []


def test_a_host_is_found_by_the_hash_of_its_name(file: Path) -> None:
    file.write_text(line(paramiko.HostKeys.hash_host("node2"), OTHER) + line(paramiko.HostKeys.hash_host("node1")))
    assert keys(file, "node1") == [KEY]
    assert keys(file, "node3") == []


def test_of_two_keys_of_a_type_the_first_counts(file: Path) -> None:
    file.write_text(line("node1") + line("node1", OTHER))
    assert keys(file, "node1") == [KEY]


@pytest.mark.parametrize(
    "broken",
    [
        "node1",
        "node1 ecdsa-sha2-nistp256 ?",
        "node1 ssh-new AAAA",
        "|1|x|y ssh-rsa AAAA",
        "node1 ssh-ed25519 AAAA",
        "\xff",
    ],
)
def test_a_line_that_cannot_be_read_hides_no_other(file: Path, broken: str) -> None:
    file.write_bytes(f"{broken}\n".encode("latin-1") + line("node1").encode())
    assert keys(file, "node1") == [KEY]


def test_a_changed_file_is_read_again(file: Path) -> None:
    file.write_text(line("node1"))
    assert keys(file, "node1") == [KEY]
    file.write_text(line("node1", OTHER))
    os.utime(file, ns=(1, 1))
    assert keys(file, "node1") == [OTHER]


def test_a_file_of_five_hundred_hosts_is_read_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("".join(line(f"10.0.{index // 250}.{index % 250}") for index in range(500)))
    assert keys(file, "10.0.0.0") == [KEY]
    monkeypatch.setattr(Path, "read_text", None)
    assert all(keys(file, f"10.0.1.{index}") == [KEY] for index in range(250))


def test_a_named_file_must_be_there_and_the_users_own_need_not(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(file.parent))
    assert known_hosts(None).keys("node1") == []
    with pytest.raises(FileNotFoundError):
        known_hosts(file)
