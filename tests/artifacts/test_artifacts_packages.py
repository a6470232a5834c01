"""Taking the binary out of each kind of download, and out of nothing else."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kvstrata.artifacts.archives import ArchiveError
from kvstrata.artifacts.compression import UnsupportedError
from kvstrata.artifacts.kinds import PACKAGES
from tests.artifacts.packages import Entry, ar, cpio, deb, rpm, tar

CONTENT = b"\x7fELF kvrocks" * 1001
BINARY = Entry("./usr/bin/kvrocks", CONTENT)
OTHERS = (Entry("./etc/kvrocks/kvrocks.conf", b"port 6666"), Entry("./usr/bin/kvrocks2redis", b"another"))
PATH = "/usr/bin/kvrocks"
MAKERS: dict[str, Callable[..., bytes]] = {"image": tar, "tarball": tar, "deb": deb, "rpm": rpm}


def zstd(content: bytes) -> bytes:
    program = shutil.which("zstd")
    if program is None:
        pytest.skip("no program zstd here to make one")
    return subprocess.run([program, "-q", "-c"], input=content, capture_output=True, check=True).stdout


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda content: content,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "lzma": lambda content: lzma.compress(content, format=lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "zstd": zstd,
}


def take(tmp_path: Path, kind: str, package: bytes, path: str = PATH) -> bytes:
    file = tmp_path / "package"
    file.write_bytes(package)
    return PACKAGES[kind](file, path)


@pytest.mark.parametrize("kind", MAKERS)
def test_the_named_file_is_taken_and_nothing_is_written(tmp_path: Path, kind: str) -> None:
    assert take(tmp_path, kind, MAKERS[kind](OTHERS[0], BINARY, OTHERS[1])) == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", ["tarball", "deb", "rpm"])
def test_every_compression_is_read(tmp_path: Path, kind: str, compression: str) -> None:
    compress = COMPRESSIONS[compression]
    package = compress(tar(BINARY)) if kind == "tarball" else MAKERS[kind](BINARY, compress=compress)
    assert take(tmp_path, kind, package) == CONTENT


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb here")
@pytest.mark.parametrize("compression", ["gzip", "xz", "zstd"])
def test_a_package_that_dpkg_made_is_read(tmp_path: Path, compression: str) -> None:
    root = tmp_path / "root"
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "usr" / "bin" / "kvrocks").write_bytes(CONTENT)
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN" / "control").write_text(
        "Package: kvrocks\nVersion: 1\nArchitecture: all\nMaintainer: t <t@e.example>\nDescription: t\n"
    )
    made = subprocess.run(
        ["dpkg-deb", f"-Z{compression}", "--build", str(root), str(tmp_path / "k.deb")],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"this dpkg-deb knows no {compression}")
    assert take(tmp_path, "deb", (tmp_path / "k.deb").read_bytes()) == CONTENT


@pytest.mark.parametrize("size", range(1, 9))
def test_whatever_the_size_of_a_signature_the_payload_is_found(tmp_path: Path, size: int) -> None:
    assert take(tmp_path, "rpm", rpm(BINARY, signature=b"s" * size)) == CONTENT


@pytest.mark.parametrize("kind", MAKERS)
def test_a_missing_file_is_refused_with_those_of_its_name(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ArchiveError, match="/usr/bin/kvrocks is not in it; there is: bin/kvrocks"):
        take(tmp_path, kind, MAKERS[kind](Entry("bin/kvrocks", CONTENT)))


@pytest.mark.parametrize("kind", MAKERS)
def test_a_link_of_that_name_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ArchiveError, match="/usr/bin/kvrocks is a symbolic link"):
        take(tmp_path, kind, MAKERS[kind](Entry("usr/bin/kvrocks", link="/etc/passwd")))


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("name", ["../usr/bin/kvrocks", "usr/bin/../bin/kvrocks", "./../../usr/bin/kvrocks"])
def test_a_name_that_leads_astray_is_never_the_file(tmp_path: Path, kind: str, name: str) -> None:
    with pytest.raises(ArchiveError, match="is not in it"):
        take(tmp_path, kind, MAKERS[kind](Entry(name, CONTENT)))


@pytest.mark.parametrize("kind", MAKERS)
def test_a_file_that_is_there_twice_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ArchiveError, match="is in it twice"):
        take(tmp_path, kind, MAKERS[kind](BINARY, Entry("usr/bin/kvrocks", b"another")))


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.5])
def test_a_package_that_is_cut_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    package = MAKERS[kind](BINARY)
    with pytest.raises(ArchiveError):
        take(tmp_path, kind, package[: int(len(package) * share)])


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_no_such_package_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ArchiveError, match=r"no .*package|no readable tar"):
        take(tmp_path, kind, b"<html>Not Found</html>" * 100)


def test_an_ar_archive_without_data_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"it has no data\.tar"):
        take(tmp_path, "deb", ar([("debian-binary", b"2.0\n")]))


def test_a_payload_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no cpio archive of the new format"):
        take(tmp_path, "rpm", rpm(compress=lambda _: b"070707" + cpio(BINARY)[6:]))


def test_without_anything_that_reads_zstd_the_message_says_what_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = deb(BINARY, compress=zstd)
    monkeypatch.setattr(shutil, "which", lambda _program: None)
    monkeypatch.setattr("importlib.import_module", _missing)
    with pytest.raises(UnsupportedError, match=r"install the program zstd, or use Python 3\.14"):
        take(tmp_path, "deb", package)


def _missing(name: str) -> None:
    raise ImportError(name)
