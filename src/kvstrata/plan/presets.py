"""Models by name: the numbers of their public config.json that a plan needs.

Source of each: `config.json` in the repository named with it, on huggingface.co. tests/plan compares the parameters
that follow with those that their makers publish: Llama 3.1 8,030,261,248 and 70,553,706,496 (sum of the tensors); Qwen3
32.8B and 30.5B (arXiv 2505.09388); DeepSeek-V3 671B, 36.6B active (README_WEIGHTS.md of its repository); gpt-oss 20.9B
and 116.8B, 3.6B and 5.1B active (arXiv 2508.10925, table 1).
"""

from __future__ import annotations

import re
from typing import Any

from kvstrata.plan.config_json import parse_config
from kvstrata.plan.reading import BadInputError
from kvstrata.plan.shape import Shape

_LLAMA = {"num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072, "dtype": "bfloat16"}
_QWEN = {"head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960, "dtype": "bfloat16"}
_OSS = {
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "num_experts_per_tok": 4,
    "sliding_window": 128,
    "vocab_size": 201088,
    "max_position_embeddings": 131072,
    "dtype": "bfloat16",
    "quantization_config": {"quant_method": "mxfp4"},
}


def _alternating(layers: int) -> list[str]:
    return ["full_attention" if index % 2 else "sliding_attention" for index in range(layers)]


_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama-3.1-8B": (
        "meta-llama/Llama-3.1-8B",
        _LLAMA | {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 14336},
    ),
    "Llama-3.1-70B": (
        "meta-llama/Llama-3.1-70B",
        _LLAMA | {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "intermediate_size": 28672},
    ),
    "Qwen3-32B": (
        "Qwen/Qwen3-32B",
        _QWEN
        | {
            "hidden_size": 5120,
            "num_hidden_layers": 64,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "intermediate_size": 25600,
        },
    ),
    "Qwen3-30B-A3B": (
        "Qwen/Qwen3-30B-A3B",
        _QWEN
        | {
            "hidden_size": 2048,
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "intermediate_size": 6144,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
        },
    ),
    "DeepSeek-V3": (
        "deepseek-ai/DeepSeek-V3",
        {
            "hidden_size": 7168,
            "num_hidden_layers": 61,
            "num_attention_heads": 128,
            "num_key_value_heads": 128,
            "intermediate_size": 18432,
            "vocab_size": 129280,
            "max_position_embeddings": 163840,
            "q_lora_rank": 1536,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "n_routed_experts": 256,
            "n_shared_experts": 1,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 2048,
            "first_k_dense_replace": 3,
            "dtype": "bfloat16",
            "quantization_config": {"quant_method": "fp8"},
        },
    ),
    "gpt-oss-20b": (
        "openai/gpt-oss-20b",
        _OSS | {"num_hidden_layers": 24, "num_local_experts": 32, "layer_types": _alternating(24)},
    ),
    "gpt-oss-120b": (
        "openai/gpt-oss-120b",
        _OSS | {"num_hidden_layers": 36, "num_local_experts": 128, "layer_types": _alternating(36)},
    ),
}

MODELS = tuple(_CONFIGS)
"""The names of the models that are known."""


def model(name: str) -> Shape:
    """Return a known model; case does not matter.

    Raises:
        BadInputError: naming those that are known.
    """
    for known, (repository, config) in _CONFIGS.items():
        if known.lower() == name.lower():
            return parse_config(config, known, f"config.json of {repository} on huggingface.co")
    raise BadInputError("model", name, f"a config.json, a model's folder, or one of {', '.join(MODELS)}")


def guessed(served_name: str) -> str | None:
    """Return the known model that a served name stands for ("Meta-Llama-3.1-8B-Instruct"), or None."""
    plain = re.sub(r"[^a-z0-9]", "", served_name.lower())
    found = [known for known in MODELS if re.sub(r"[^a-z0-9]", "", known.lower()) in plain]
    return max(found, key=len, default=None)
