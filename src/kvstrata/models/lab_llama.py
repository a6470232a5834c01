"""The lab's model: Llama's shape with random weights, a byte-level tokenizer and a chat template.

Its answers mean nothing, but they are the same for the same prompt, and its KV cache is real: that is what
the lab has to prove. The same seed and shape give the same weights.
"""

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NAME = "lab-llama-136m"
FINGERPRINT = "fingerprint.json"
# The shape alone does not say how weights and files are made: raise this when that changes.
_FORMAT = 2

_ATTENTION_SCALE = 0.08

_BYTES = 256
_SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start|>", "<|end|>")
_BOS, _EOS = _BYTES, _BYTES + 1
_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama model, as in its config.json."""

    hidden: int = 1024
    layers: int = 12
    heads: int = 16
    kv_heads: int = 4
    head_dim: int = 64
    intermediate: int = 2816
    vocabulary: int = 512
    max_positions: int = 8192


def config(shape: Shape) -> dict[str, Any]:
    """Return the model's config.json."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.max_positions,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "dtype": "float32",
        "bos_token_id": _BOS,
        "eos_token_id": _EOS,
        "initializer_range": 0.02,
        "attention_bias": False,
        "mlp_bias": False,
    }


def _write_weights(path: Path, shape: Shape, seed: int) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    random = np.random.default_rng(seed)

    def normal(rows: int, columns: int, scale: float = 0.02) -> Any:
        return random.standard_normal((rows, columns), dtype=np.float32) * np.float32(scale)

    def ones() -> Any:
        return np.ones(shape.hidden, np.float32)

    queries, values = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    tensors = {"model.embed_tokens.weight": normal(shape.vocabulary, shape.hidden, 1 / 32)}
    for layer in range(shape.layers):
        name = f"model.layers.{layer}"
        tensors |= {
            # Strong enough that attention picks out tokens instead of averaging the whole prompt away.
            f"{name}.self_attn.q_proj.weight": normal(queries, shape.hidden, _ATTENTION_SCALE),
            f"{name}.self_attn.k_proj.weight": normal(values, shape.hidden, _ATTENTION_SCALE),
            f"{name}.self_attn.v_proj.weight": normal(values, shape.hidden),
            f"{name}.self_attn.o_proj.weight": normal(shape.hidden, queries),
            f"{name}.mlp.gate_proj.weight": normal(shape.intermediate, shape.hidden),
            f"{name}.mlp.up_proj.weight": normal(shape.intermediate, shape.hidden),
            f"{name}.mlp.down_proj.weight": normal(shape.hidden, shape.intermediate),
            f"{name}.input_layernorm.weight": ones(),
            f"{name}.post_attention_layernorm.weight": ones(),
        }
    tensors["model.norm.weight"] = ones()
    # A head of its own, and zeros for what is not printable: with tied embeddings the model would repeat the last
    # token for ever, and equal answers would prove nothing.
    head = normal(shape.vocabulary, shape.hidden)
    head[[token for token in range(shape.vocabulary) if token not in _printable()]] = 0
    tensors["lm_head.weight"] = head
    save_file(tensors, path, metadata={"format": "pt"})


def _alphabet() -> list[str]:
    """The letters that stand for the 256 bytes; a letter's place is its token."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _printable() -> set[int]:
    """The tokens that the model answers with: printable ASCII, which the alphabet writes as itself."""
    return {token for token, letter in enumerate(_alphabet()) if letter.isascii()}


def write_tokenizer(folder: Path, shape: Shape) -> None:
    """Write tokenizer.json and tokenizer_config.json: a token for each byte, and the special ones."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(_alphabet())}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": _SPECIAL[0],
            "eos_token": _SPECIAL[1],
            "model_max_length": shape.max_positions,
            "clean_up_tokenization_spaces": False,
            "chat_template": _CHAT_TEMPLATE,
        },
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def _identity(shape: Shape, seed: int) -> dict[str, Any]:
    """What decides the model's content."""
    return {"format": _FORMAT, "seed": seed, "shape": asdict(shape)}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_whole(folder: Path, shape: Shape, seed: int, *, thorough: bool = False) -> bool:
    """Say whether `folder` holds this very model: its sizes agree, and if `thorough` its digests too."""
    try:
        fingerprint = json.loads((folder / FINGERPRINT).read_text())
        files = fingerprint.pop("files")
        if fingerprint != _identity(shape, seed):
            return False
        return all(
            (folder / name).stat().st_size == entry["size"]
            and (not thorough or sha256(folder / name) == entry["sha256"])
            for name, entry in files.items()
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def generate(folder: Path, shape: Shape, seed: int) -> None:
    """Write the model's files into the empty `folder`, readable by every user: services have their own."""
    _write_json(folder / "config.json", config(shape))
    _write_json(folder / "generation_config.json", {"bos_token_id": _BOS, "eos_token_id": _EOS})
    write_tokenizer(folder, shape)
    _write_weights(folder / "model.safetensors", shape, seed)
    files = {path.name: {"size": path.stat().st_size, "sha256": sha256(path)} for path in sorted(folder.iterdir())}
    _write_json(folder / FINGERPRINT, {**_identity(shape, seed), "files": files})
    for path in folder.iterdir():
        path.chmod(0o644)
    folder.chmod(0o755)


def ensure(models: Path, *, shape: Shape | None = None, seed: int = 1, thorough: bool = False) -> bool:
    """Make sure that `models`/lab-llama-136m is there and whole; return whether it had to be generated.

    The folder appears at once and complete; what was there and is not whole is replaced.
    """
    shape = shape or Shape()
    target = models / NAME
    if is_whole(target, shape, seed, thorough=thorough):
        return False
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=f".{NAME}-") as scratch:
        draft = Path(scratch) / "model"
        draft.mkdir()
        generate(draft, shape, seed)
        if is_whole(target, shape, seed):
            # Another process made it meanwhile, and may be serving it.
            return False
        if target.exists():
            shutil.rmtree(target)
        draft.rename(target)
    return True
