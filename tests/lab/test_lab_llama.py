import json
import os
from pathlib import Path

import pytest

from kvstrata.models import lab_llama
from kvstrata.models.lab_llama import FINGERPRINT, NAME, Shape, ensure, is_whole, sha256

TINY = Shape(hidden=16, layers=1, heads=2, kv_heads=1, head_dim=8, intermediate=32)


def test_the_same_seed_gives_the_same_model_and_another_seed_another(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert ensure(tmp_path / name, shape=TINY, seed=seed)
    a, b, c = (sha256(tmp_path / name / NAME / "model.safetensors") for name in "abc")
    assert a == b
    assert a != c


def test_the_fingerprint_says_seed_shape_and_the_digest_of_every_file(tmp_path: Path) -> None:
    ensure(tmp_path, shape=TINY, seed=3)
    folder = tmp_path / NAME
    fingerprint = json.loads((folder / FINGERPRINT).read_text())
    assert fingerprint["seed"] == 3
    assert fingerprint["shape"]["hidden"] == 16
    present = {path.name for path in folder.iterdir()} - {FINGERPRINT}
    assert set(fingerprint["files"]) == present
    weights = fingerprint["files"]["model.safetensors"]
    assert weights["sha256"] == sha256(folder / "model.safetensors")


def test_a_whole_model_is_left_alone(tmp_path: Path) -> None:
    ensure(tmp_path, shape=TINY)
    before = (tmp_path / NAME).stat().st_ino
    assert not ensure(tmp_path, shape=TINY)
    assert (tmp_path / NAME).stat().st_ino == before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", FINGERPRINT])
def test_a_model_that_lost_a_file_is_made_again(tmp_path: Path, name: str) -> None:
    ensure(tmp_path, shape=TINY)
    (tmp_path / NAME / name).unlink()
    assert ensure(tmp_path, shape=TINY)
    assert is_whole(tmp_path / NAME, TINY, 1, thorough=True)


def test_a_changed_byte_is_found_by_the_thorough_look(tmp_path: Path) -> None:
    ensure(tmp_path, shape=TINY)
    weights = tmp_path / NAME / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert is_whole(tmp_path / NAME, TINY, 1)
    assert not is_whole(tmp_path / NAME, TINY, 1, thorough=True)


def test_another_shape_is_another_model(tmp_path: Path) -> None:
    ensure(tmp_path, shape=TINY)
    assert not is_whole(tmp_path / NAME, Shape(), 1)


def test_every_user_can_read_the_model_whatever_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        ensure(tmp_path, shape=TINY)
    finally:
        os.umask(previous)
    folder = tmp_path / NAME
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_a_failed_generation_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(lab_llama, "_write_weights", fail)
    with pytest.raises(OSError, match="disk full"):
        ensure(tmp_path, shape=TINY)
    assert list(tmp_path.iterdir()) == []


def test_the_lab_model_has_136_million_parameters() -> None:
    shape = Shape()
    attention = shape.hidden * shape.head_dim * (2 * shape.heads + 2 * shape.kv_heads)
    layer = attention + 3 * shape.hidden * shape.intermediate + 2 * shape.hidden
    total = shape.layers * layer + shape.vocabulary * shape.hidden + shape.hidden
    assert round(total / 1e6) == 136
