"""Finding the Kvrocks binary, over a real HTTP server."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kvstrata.artifacts.binary import ChecksumError, resolve
from kvstrata.artifacts.lock import Binary

CONTENT = b"\x7fELF kvrocks"
SHA = hashlib.sha256(CONTENT).hexdigest()


class Mirror(ThreadingHTTPServer):
    """Serves CONTENT as /kvrocks and less than it promises as /cut; everything else is missing."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class _Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path not in ("/kvrocks", "/cut"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT if self.path == "/kvrocks" else CONTENT[:4])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    server = Mirror()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_local_file_comes_before_the_download(tmp_path: Path, mirror: Mirror) -> None:
    local = tmp_path / "kvrocks"
    local.write_bytes(b"mine")
    found = resolve(local, Binary("2.10.1", mirror.url("/kvrocks"), SHA), tmp_path / "cache")
    assert found.as_dict() == {
        "path": str(local),
        "sha256": hashlib.sha256(b"mine").hexdigest(),
        "version": "",
        "reason": f"local file {local}",
    }
    assert mirror.asked == []


def test_without_a_sha256_nothing_is_ever_downloaded(tmp_path: Path, mirror: Mirror) -> None:
    found = resolve(tmp_path / "none", Binary("2.10.1", mirror.url("/kvrocks"), None), tmp_path / "cache")
    assert (found.path, found.sha256) == (None, None)
    assert found.reason == f"{tmp_path / 'none'} does not exist and artifacts.lock.yml has no kvrocks.sha256"
    assert mirror.asked == []


def test_without_a_url_the_reason_says_so(tmp_path: Path) -> None:
    found = resolve(tmp_path / "none", Binary("2.10.1", None, SHA), tmp_path / "cache")
    assert found.path is None
    assert found.reason.endswith("artifacts.lock.yml has no kvrocks.url")


def test_a_download_with_the_right_checksum_is_kept_and_made_once(tmp_path: Path, mirror: Mirror) -> None:
    locked = Binary("2.10.1", mirror.url("/kvrocks"), SHA)
    found = resolve(tmp_path / "none", locked, tmp_path / "cache")
    assert found.path is not None
    assert Path(found.path).read_bytes() == CONTENT
    assert (found.sha256, found.reason) == (SHA, f"download {mirror.url('/kvrocks')}")
    assert resolve(tmp_path / "none", locked, tmp_path / "cache") == found
    assert mirror.asked == ["/kvrocks"]


def test_a_download_with_another_checksum_is_an_error_and_not_kept(tmp_path: Path, mirror: Mirror) -> None:
    with pytest.raises(ChecksumError, match=f"sha256 is {SHA}, artifacts.lock.yml says {'0' * 64}"):
        resolve(tmp_path / "none", Binary("2.10.1", mirror.url("/kvrocks"), "0" * 64), tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(("path", "why"), [("/gone", "404"), ("/cut", "IncompleteRead")])
def test_a_download_that_fails_is_a_reason_and_no_exception(
    tmp_path: Path, mirror: Mirror, path: str, why: str
) -> None:
    found = resolve(tmp_path / "none", Binary("2.10.1", mirror.url(path), SHA), tmp_path / "cache", first_pause_s=0.01)
    assert found.path is None
    assert f"{mirror.url(path)} is out of reach" in found.reason
    assert why in found.reason
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_a_server_that_is_down_is_a_reason_and_no_exception(tmp_path: Path, mirror: Mirror) -> None:
    mirror.shutdown()
    mirror.server_close()
    locked = Binary("2.10.1", mirror.url("/kvrocks"), SHA)
    found = resolve(tmp_path / "none", locked, tmp_path / "cache", first_pause_s=0.01)
    assert found.path is None
    assert "refused" in found.reason
