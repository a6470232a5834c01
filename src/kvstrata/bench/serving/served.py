"""The model to serve: a folder, the lab's model, or only the shape of a model, which needs no weights."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.engine_options import ServedModel
from kvstrata.models import lab_llama
from kvstrata.models.lab_llama import Shape
from kvstrata.plan.shape import KV_BYTES

LAB = lab_llama.NAME
TINY = "tiny-llama"
_TINY = Shape(hidden=256, layers=4, heads=4, kv_heads=2, head_dim=64, intermediate=512)
# Sizes as in each model's config.json (src/kvstrata/plan/presets.py); 32B: Qwen3-32B's, without its norms of q and k.
SHAPES: Mapping[str, Shape] = {
    "llama-8b-shape": Shape(4096, 32, 32, 8, 128, 14336, 128256, 131072),
    "32b-shape": Shape(5120, 64, 64, 8, 128, 25600, 151936, 40960),
}
KNOWN = (TINY, LAB, *SHAPES)
_NAMES = ("auto", "float32", "bfloat16", "float16", "half", "float")


def prepare(
    given: str, models: Path, *, dtype: str | None, kv_dtype: str = "auto", load_format: str | None, most_tokens: int
) -> ServedModel:
    """Return the model that `given` names: one of KNOWN, made below `models` if it is not there, or a folder.

    Raises:
        BenchError: neither; or its configuration cannot be read.
    """
    if dtype is not None and dtype not in _NAMES:
        raise BenchError(f"--dtype is {dtype!r}; allowed: {', '.join(_NAMES)}")
    if kv_dtype not in KV_BYTES:
        raise BenchError(f"--kv-dtype is {kv_dtype!r}; allowed: {', '.join(KV_BYTES)}")
    if given == LAB:
        lab_llama.ensure(models)
        path, natural = models / LAB, "auto"
    elif given == TINY:
        path, natural = _made(given, models, lambda draft: lab_llama.generate(draft, _TINY, 1)), "auto"
    elif given in SHAPES:
        path, natural = _made(given, models, lambda draft: _write_shape(draft, SHAPES[given])), "dummy"
    else:
        path, natural = Path(given).resolve(), "auto"
    found = ServedModel(Path(given).name, str(path), load_format=load_format or natural)
    config = read_config(path, f"--model {given}")
    longest = int(config.get("max_position_embeddings", most_tokens))
    return replace(
        found,
        dtype=dtype or str(config.get("dtype") or config.get("torch_dtype") or "auto"),
        kv_dtype=kv_dtype,
        max_model_len=min(longest, most_tokens),
        revision=revision(path),
    )


def read_config(path: Path, what: str) -> dict[str, Any]:
    """Return a model's config.json.

    Raises:
        BenchError: there is none, or it is not JSON.
    """
    try:
        return dict(json.loads((path / "config.json").read_text()))
    except FileNotFoundError:
        raise BenchError(f"{what}: no {path}/config.json; allowed: a model's folder, or {', '.join(KNOWN)}") from None
    except (OSError, ValueError) as error:
        raise BenchError(f"{what}: {path}/config.json cannot be read: {error}") from error


def revision(path: Path) -> str:
    """Return what identifies the files of a model well enough for a benchmark: a digest of their names and sizes."""
    files = sorted((file.name, file.stat().st_size) for file in path.iterdir() if file.is_file())
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:12]


def _made(name: str, models: Path, make: Callable[[Path], None]) -> Path:
    """Return the folder of a model, made if it is not there; it appears at once and complete."""
    target = models / name
    if not target.is_dir():
        models.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=models, prefix=f".{name}-") as scratch:
            draft = Path(scratch) / "model"
            draft.mkdir()
            make(draft)
            try:
                draft.rename(target)
            except OSError:
                # Another run made the same one meanwhile: two go on side by side on a host with two GPUs.
                if not target.is_dir():
                    raise
    return target


def _write_shape(folder: Path, shape: Shape) -> None:
    content = lab_llama.config(shape) | {"torch_dtype": "bfloat16", "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(content, indent=1) + "\n")
    lab_llama.write_tokenizer(folder, shape)
    _fill_vocabulary(folder / "tokenizer.json", shape.vocabulary)


def _fill_vocabulary(file: Path, size: int) -> None:
    """Give every token id a text: dummy weights answer with any of them, and clients count texts."""
    tokenizer = json.loads(file.read_text())
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    # Special tokens that the vocabulary does not know would be given other ids as it grows.
    vocabulary |= {token["content"]: int(token["id"]) for token in tokenizer["added_tokens"]}
    taken = set(vocabulary.values())
    vocabulary |= {f"w{number}": number for number in range(size) if number not in taken}
    file.write_text(json.dumps(tokenizer))
