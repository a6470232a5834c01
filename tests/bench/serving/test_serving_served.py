"""The model of a benchmark: a folder, or one made of a shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving import served
from kvstrata.bench.serving.engine_options import EnginePlace, ServedModel, role_options
from kvstrata.models.lab_llama import Shape


def prepared(given: str, models: Path, **changes: Any) -> ServedModel:
    wanted: dict[str, Any] = {"dtype": None, "load_format": None, "most_tokens": 10000, **changes}
    return served.prepare(given, models, **wanted)


def test_a_shape_needs_no_weights(tmp_path: Path) -> None:
    model = prepared("32b-shape", tmp_path)
    assert (model.load_format, model.dtype, model.max_model_len) == ("dummy", "bfloat16", 10000)
    assert not list(Path(model.path).glob("*.safetensors"))
    config = json.loads((Path(model.path) / "config.json").read_text())
    # 64 layers, 8 heads of 128: 256 KiB of KV for each token in bf16.
    assert 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"] * 2 == 256 << 10


def test_every_token_of_a_shape_has_a_text_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "SHAPES", {"small": Shape(vocabulary=1000)})
    tokenizer = Tokenizer.from_file(str(Path(prepared("small", tmp_path).path) / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 1000
    assert len({tokenizer.id_to_token(number) for number in range(1000)}) == 1000


def test_the_tiny_model_has_weights_and_computes_exactly(tmp_path: Path) -> None:
    model = prepared(served.TINY, tmp_path)
    assert (model.load_format, model.dtype) == ("auto", "float32")
    assert (Path(model.path) / "model.safetensors").is_file()


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    first = Path(prepared(served.TINY, tmp_path).path).stat().st_ino
    assert Path(prepared(served.TINY, tmp_path).path).stat().st_ino == first


def test_a_folder_without_config_is_refused_with_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=rf"--model {tmp_path}: no .*config.json; allowed: a model's folder, or tiny"):
        prepared(str(tmp_path), tmp_path)


def test_two_runs_may_make_the_same_model_at_the_same_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = served._write_shape

    def beaten(folder: Path, shape: Shape) -> None:
        write(folder, shape)
        monkeypatch.setattr(served, "_write_shape", write)
        prepared("32b-shape", tmp_path)

    monkeypatch.setattr(served, "_write_shape", beaten)
    assert Path(prepared("32b-shape", tmp_path).path) == tmp_path / "32b-shape"
    assert [path.name for path in tmp_path.iterdir()] == ["32b-shape"]


def test_kv_of_another_type_is_what_the_engine_is_told(tmp_path: Path) -> None:
    model = prepared("32b-shape", tmp_path, kv_dtype="fp8")
    assert role_options(model, EnginePlace(8000), "cuda", lmcache=True)["kv-cache-dtype"] == "fp8"
    with pytest.raises(BenchError, match=r"--kv-dtype is 'int3'; allowed: auto, .*fp8"):
        prepared(served.TINY, tmp_path, kv_dtype="int3")


def test_an_unknown_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="--dtype is 'fp33'; allowed: auto, float32"):
        prepared(served.TINY, tmp_path, dtype="fp33")


def test_the_length_is_no_more_than_the_models(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 512, "torch_dtype": "float16"}))
    model = prepared(str(tmp_path), tmp_path)
    assert (model.max_model_len, model.dtype, model.name) == (512, "float16", tmp_path.name)


def test_another_size_of_a_file_is_another_revision(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = served.revision(tmp_path)
    (tmp_path / "a").write_text("12")
    assert served.revision(tmp_path) != before
