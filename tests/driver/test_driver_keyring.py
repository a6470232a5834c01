"""The key of the driver's repository: checked, or refused with what to do."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstrata.artifacts.lock import DriverRepository, Keyring, LockError, read_lock
from kvstrata.driver.keyring import KeyringError, repository_of
from kvstrata.driver.packages import SYSTEMS
from kvstrata.paths import PROJECT

KEY = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nnot really one\n"
SHA = hashlib.sha256(KEY).hexdigest()
MIRROR = "https://mirror.example/nvidia/"


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(KEY)))
            self.end_headers()
            self.wfile.write(KEY)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}/key.pub"
        found.shutdown()


def locked(url: str, sha256: str | None) -> DriverRepository:
    return DriverRepository("https://repo.example", {"debian12": Keyring(url, sha256)})


def test_a_key_of_the_lock_is_downloaded_once_and_checked(server: str, tmp_path: Path) -> None:
    found = repository_of("nvidia", "debian12/x86_64", locked(server, SHA), tmp_path)
    assert (found.url, found.suffix) == ("https://repo.example/debian12/x86_64/", "asc")
    assert Path(found.keyring).read_bytes() == KEY
    # A second time from the cache: nobody is asked.
    assert repository_of("nvidia", "debian12/x86_64", locked("http://127.0.0.1:9/none", SHA), tmp_path) == found


def test_another_key_than_the_lock_names_is_refused(server: str, tmp_path: Path) -> None:
    with pytest.raises(KeyringError, match="sha256 is"):
        repository_of("nvidia", "debian12/x86_64", locked(server, "0" * 64), tmp_path, first_pause_s=0)
    assert not list(tmp_path.rglob("*.key"))


def test_a_key_that_was_changed_in_the_cache_is_fetched_again(server: str, tmp_path: Path) -> None:
    found = repository_of("nvidia", "debian12/x86_64", locked(server, SHA), tmp_path)
    Path(found.keyring).write_bytes(b"changed")
    repository_of("nvidia", "debian12/x86_64", locked(server, SHA), tmp_path)
    assert Path(found.keyring).read_bytes() == KEY


@pytest.mark.parametrize("folder", ["debian12/x86_64", "ubuntu2404/sbsa"])
def test_without_a_checksum_nothing_is_downloaded(folder: str, tmp_path: Path) -> None:
    with pytest.raises(KeyringError, match=rf"no sha256 at nvidia\.keyrings\.{folder.partition('/')[0]}; allowed: the"):
        repository_of("nvidia", folder, locked("http://127.0.0.1:9/none", None), tmp_path)


def test_a_mirror_has_a_key_of_its_own(tmp_path: Path) -> None:
    key = tmp_path / "mirror.gpg"
    key.write_bytes(b"\x99\x01binary")
    sha256 = hashlib.sha256(key.read_bytes()).hexdigest()
    found = repository_of(MIRROR, "debian12/x86_64", locked("", None), tmp_path, str(key), sha256)
    assert (found.url, found.keyring, found.suffix) == (MIRROR, str(key), "gpg")


@pytest.mark.parametrize(
    ("name", "sha256", "text"),
    [
        ("mirror.gpg", "", "allowed: with nvidia_driver_keyring_sha256 beside it"),
        ("none.gpg", SHA, "allowed: a file that exists on the controller"),
        ("mirror.gpg", "0" * 64, "as nvidia_driver_keyring_sha256 says"),
    ],
)
def test_a_key_of_ones_own_needs_its_checksum(name: str, sha256: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "mirror.gpg").write_bytes(KEY)
    with pytest.raises(KeyringError, match=text):
        repository_of(MIRROR, "debian12/x86_64", locked("", None), tmp_path, str(tmp_path / name), sha256)


def test_the_lock_names_a_key_for_every_system() -> None:
    repository = read_lock(PROJECT / "artifacts.lock.yml").nvidia
    assert set(repository.keyrings) == {system.folder for system in SYSTEMS.values()}
    assert all(keyring.url.startswith(f"{repository.url}/{name}/") for name, keyring in repository.keyrings.items())


def test_a_checksum_that_is_none_is_refused(tmp_path: Path) -> None:
    text = (
        (PROJECT / "artifacts.lock.yml")
        .read_text()
        .replace("3bf863cc.pub, sha256: null", "3bf863cc.pub, sha256: 12", 1)
    )
    (tmp_path / "lock.yml").write_text(text)
    with pytest.raises(LockError, match=r"nvidia\.keyrings\.debian12\.sha256 is 12"):
        read_lock(tmp_path / "lock.yml")
