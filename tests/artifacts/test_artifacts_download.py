"""Downloads of every kind, over real HTTP: a registry, and files that come whole, late, cut or not at all."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstrata.artifacts.archives import ArchiveError
from kvstrata.artifacts.binary import ChecksumError, Found, resolve
from kvstrata.artifacts.download import ATTEMPTS
from kvstrata.artifacts.lock import Binary
from kvstrata.artifacts.oci import ImageError
from tests.artifacts.packages import Entry, deb, rpm, tar
from tests.artifacts.registry import TOKEN, Answer, Asked, Registry, Web, digest

CONTENT = b"\x7fELF kvrocks" * 1001
SHA = hashlib.sha256(CONTENT).hexdigest()
LAYER = gzip.compress(tar(Entry("bin/kvrocks", CONTENT)))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def find(tmp_path: Path, **fields: Any) -> Found:
    locked = Binary(**{"version": "2.10.1", "path": "/bin/kvrocks", "binary_sha256": SHA, **fields})
    return resolve(tmp_path / "none", locked, tmp_path / "cache", first_pause_s=0.01)


def kept(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


@pytest.fixture
def registry() -> Iterator[Registry]:
    served = Registry(LAYER)
    with served.web:
        yield served


def image(tmp_path: Path, registry: Registry, **fields: Any) -> Found:
    return find(tmp_path, **{"kind": "image", "url": registry.image, "sha256": sha256(LAYER), **fields})


# --- images ---


def test_a_layer_is_pulled_and_the_binary_taken_out_once(tmp_path: Path, registry: Registry) -> None:
    found = image(tmp_path, registry)
    assert found.path is not None
    assert Path(found.path).read_bytes() == CONTENT
    assert (found.sha256, found.version) == (SHA, "2.10.1")
    asked = len(registry.web.asked)
    assert image(tmp_path, registry) == found
    assert len(registry.web.asked) == asked


def test_the_token_goes_to_the_registry_and_not_to_where_it_redirects(tmp_path: Path, registry: Registry) -> None:
    image(tmp_path, registry)
    blob = f"/v2/apache/kvrocks/blobs/{digest(LAYER)}"
    assert Asked("127.0.0.1", blob, f"Bearer {TOKEN}") in registry.web.asked
    assert [asked for asked in registry.web.asked if asked.host == "localhost"] == [Asked("localhost", "/storage", "")]


def test_an_image_can_be_named_by_its_digest(tmp_path: Path, registry: Registry) -> None:
    url = registry.web.url(f"/apache/kvrocks@{digest(registry.index)}")
    assert image(tmp_path, registry, url=url).sha256 == SHA


def test_another_platform_is_refused_with_those_that_there_are(tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(ImageError, match="is not made for linux/s390x; it is for: linux/amd64, linux/arm64"):
        image(tmp_path, registry, platform="linux/s390x")


def test_a_layer_of_another_platform_is_refused_with_those_of_this_one(tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(ImageError, match=f"has no layer {digest(LAYER)} for linux/arm64; it has: sha256:"):
        image(tmp_path, registry, platform="linux/arm64")


def test_a_manifest_that_is_not_what_its_digest_says_is_refused(tmp_path: Path, registry: Registry) -> None:
    registry.forged = True
    with pytest.raises(ChecksumError, match="the registry sent a manifest sha256:"):
        image(tmp_path, registry)


def test_a_registry_that_is_busy_for_a_while_is_asked_again(tmp_path: Path, registry: Registry) -> None:
    registry.failing = ATTEMPTS - 1
    assert image(tmp_path, registry).sha256 == SHA


@pytest.mark.parametrize("fault", ["failing", "cut"])
def test_a_layer_that_never_comes_whole_is_a_reason_and_leaves_nothing(
    tmp_path: Path, registry: Registry, fault: str
) -> None:
    setattr(registry, fault, 100)
    found = image(tmp_path, registry)
    assert found.path is None
    assert "is out of reach" in found.reason
    assert kept(tmp_path) == []


def test_an_image_that_is_not_there_is_a_reason(tmp_path: Path, registry: Registry) -> None:
    found = image(tmp_path, registry, url=registry.web.url("/apache/kvrocks:9.9.9"))
    assert found.path is None
    assert "404" in found.reason


def test_a_layer_without_the_binary_is_refused(tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(ArchiveError, match="/usr/bin/kvrocks is not in it; there is: bin/kvrocks"):
        image(tmp_path, registry, path="/usr/bin/kvrocks")


def test_a_layer_with_another_binary_is_refused_and_the_binary_not_kept(tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(ChecksumError, match=f"sha256 is {SHA}, artifacts.lock.yml says {'0' * 64}"):
        image(tmp_path, registry, binary_sha256="0" * 64)
    assert kept(tmp_path) == [f"kvrocks-2.10.1-{sha256(LAYER)[:12]}.image"]


# --- packages ---

PACKAGES = {
    "deb": deb(Entry("./usr/bin/kvrocks", CONTENT)),
    "rpm": rpm(Entry("./usr/bin/kvrocks", CONTENT)),
    "tarball": gzip.compress(tar(Entry("kvrocks-2.10.1/kvrocks", CONTENT))),
}
PATHS = {"deb": "/usr/bin/kvrocks", "rpm": "/usr/bin/kvrocks", "tarball": "kvrocks-2.10.1/kvrocks"}


@pytest.mark.parametrize("kind", PACKAGES)
def test_a_package_is_downloaded_and_the_binary_taken_out_once(tmp_path: Path, kind: str) -> None:
    package = PACKAGES[kind]
    with Web(lambda _: Answer(content=package)) as web:
        fields = {"kind": kind, "url": web.url("/p"), "sha256": sha256(package), "path": PATHS[kind]}
        found = find(tmp_path, **fields)
        assert found == find(tmp_path, **fields)
    assert found.path is not None
    assert Path(found.path).read_bytes() == CONTENT
    assert len(web.asked) == 1


@pytest.mark.parametrize("kind", PACKAGES)
def test_a_package_with_another_checksum_is_refused_and_not_kept(tmp_path: Path, kind: str) -> None:
    with Web(lambda _: Answer(content=PACKAGES[kind])) as web, pytest.raises(ChecksumError, match="sha256 is"):
        find(tmp_path, kind=kind, url=web.url("/p"), sha256="0" * 64, path=PATHS[kind])
    assert kept(tmp_path) == []


def test_without_the_checksum_of_the_binary_a_package_is_never_downloaded(tmp_path: Path) -> None:
    with Web(lambda _: Answer(content=PACKAGES["deb"])) as web:
        found = find(tmp_path, kind="deb", url=web.url("/p"), sha256="0" * 64, binary_sha256=None)
    assert found.reason.endswith("artifacts.lock.yml has no kvrocks.binary_sha256")
    assert web.asked == []


def test_a_binary_that_was_spoilt_in_the_cache_is_taken_anew(tmp_path: Path) -> None:
    package = PACKAGES["deb"]
    with Web(lambda _: Answer(content=package)) as web:
        fields = {"kind": "deb", "url": web.url("/p"), "sha256": sha256(package), "path": PATHS["deb"]}
        found = find(tmp_path, **fields)
        assert found.path is not None
        Path(found.path).write_bytes(b"spoilt")
        assert find(tmp_path, **fields) == found
    assert Path(found.path).read_bytes() == CONTENT


def test_what_is_gone_is_asked_for_once(tmp_path: Path) -> None:
    with Web(lambda _: Answer(404)) as web:
        assert "404" in find(tmp_path, url=web.url("/p"), sha256=SHA).reason
    assert len(web.asked) == 1


def test_a_url_of_another_kind_is_a_reason(tmp_path: Path) -> None:
    assert "no http or https URL" in find(tmp_path, url=f"file://{tmp_path}/x", sha256=SHA).reason


# --- local files ---


def test_a_local_file_with_another_checksum_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kvrocks").write_bytes(CONTENT)
    locked = Binary("2.10.1", None, None)
    with pytest.raises(ChecksumError, match=f"sha256 is {SHA}, kvrocks_binary_sha256 says {'0' * 64}"):
        resolve(tmp_path / "kvrocks", locked, tmp_path / "cache", sha256="0" * 64)
    assert resolve(tmp_path / "kvrocks", locked, tmp_path / "cache", sha256=SHA, version="2.17.0").version == "2.17.0"
