"""A Shape from a model's config.json, as Hugging Face's transformers writes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvstrata.plan.reading import BadInputError, Fields, read_json
from kvstrata.plan.shape import Experts, Mla, Shape

_TYPES = {"float32": 4.0, "float": 4.0, "bfloat16": 2.0, "float16": 2.0, "half": 2.0}
# 4 bits of each weight and a scale of 8 bits for 32 of them: OCP Microscaling Formats (MX) 1.0, section 5.3.
_MXFP4_BYTES = (4 + 8 / 32) / 8
# Layers of these kinds keep a state of another form than KV of every token.
_STATEFUL = ("mamba", "linear_attention", "recurrent")


def read_config(path: Path) -> Shape:
    """Return the shape of a model.

    Args:
        path: config.json, or the model's folder.

    Raises:
        BadInputError: naming the field that is missing or cannot be.
    """
    path = path / "config.json" if path.is_dir() else path
    name = path.resolve().parent.name if path.name == "config.json" else path.stem
    return parse_config(read_json(path, "model"), name, f"{path}")


def parse_config(config: Mapping[str, Any], name: str, source: str) -> Shape:
    """Return the shape that a decoded config.json describes; multimodal models are their text part."""
    if isinstance(config.get("text_config"), Mapping):
        config = {**config, **config["text_config"]}
    at = Fields("config.json", config)
    layers = at.integer("num_hidden_layers", 1)
    kinds = config.get("layer_types") or []
    if any(str(kind).startswith(_STATEFUL) for kind in kinds) or "mamba_d_state" in config:
        raise BadInputError("config.json.layer_types", sorted(set(kinds)), "full_attention and sliding_attention only")
    heads = at.integer("num_attention_heads", 1)
    hidden = at.integer("hidden_size", 1)
    window_layers, window = _windows(at, layers)
    experts = _experts(at, layers)
    value_bytes = _TYPES.get(str(config.get("dtype") or config.get("torch_dtype") or "bfloat16"))
    if value_bytes is None:
        raise BadInputError("config.json.dtype", config.get("dtype") or config.get("torch_dtype"), ", ".join(_TYPES))
    linear, expert, compute = _quantization(at, value_bytes)
    if "head_dim" not in at and "kv_lora_rank" not in at and hidden % heads:
        raise BadInputError("config.json.head_dim", None, "a whole number; hidden_size / num_attention_heads is none")
    return Shape(
        name=name,
        source=source,
        hidden=hidden,
        full_layers=layers - window_layers,
        window_layers=window_layers,
        window=window,
        heads=heads,
        kv_heads=at.integer("num_key_value_heads", 1, heads, default=heads),
        head_dim=at.integer("head_dim", 1, default=hidden // heads or 1),
        dense_layers=layers - (experts.layers if experts else 0),
        intermediate=at.integer("intermediate_size", 1),
        vocabulary=at.integer("vocab_size", 1),
        tied=at.flag("tie_word_embeddings"),
        mla=_mla(at),
        experts=experts,
        value_bytes=value_bytes,
        linear_bytes=linear,
        expert_bytes=expert,
        compute=compute,
        max_positions=at.integer("max_position_embeddings", 0, default=0),
    )


def _mla(at: Fields) -> Mla | None:
    if "kv_lora_rank" not in at:
        return None
    return Mla(
        kv_lora_rank=at.integer("kv_lora_rank", 1),
        q_lora_rank=at.integer("q_lora_rank", 0, default=0),
        qk_nope_head_dim=at.integer("qk_nope_head_dim", 1),
        qk_rope_head_dim=at.integer("qk_rope_head_dim", 0),
        v_head_dim=at.integer("v_head_dim", 1),
    )


def _windows(at: Fields, layers: int) -> tuple[int, int]:
    """Return how many layers have a sliding window, and its tokens."""
    window = at.integer("sliding_window", 0, default=0)
    kinds = at.values.get("layer_types")
    if kinds is not None:
        if not isinstance(kinds, list) or len(kinds) != layers:
            raise BadInputError("config.json.layer_types", kinds, f"a list with one kind for each of {layers} layers")
        sliding = sum(kind == "sliding_attention" for kind in kinds)
        if sliding and not window:
            raise BadInputError("config.json.sliding_window", at.values.get("sliding_window"), "a number of tokens")
        return (sliding, window) if sliding else (0, 0)
    if not window or at.values.get("use_sliding_window") is False:
        return 0, 0
    if "use_sliding_window" in at:
        # Qwen2 and 3: the first max_window_layers see everything.
        sliding = layers - at.integer("max_window_layers", 0, default=layers)
        return (sliding, window) if sliding > 0 else (0, 0)
    return layers, window


def _experts(at: Fields, layers: int) -> Experts | None:
    names = [name for name in ("num_experts", "num_local_experts", "n_routed_experts") if name in at]
    if not names or not (routed := at.integer(names[0], 0)):
        return None
    if "num_experts_per_tok" not in at and "experts_per_token" in at:
        per_token = at.integer("experts_per_token", 1, routed)
    else:
        per_token = at.integer("num_experts_per_tok", 1, routed)
    intermediate = at.integer("moe_intermediate_size", 1, default=at.integer("intermediate_size", 1))
    dense = at.integer("first_k_dense_replace", 0, layers, default=0) if "first_k_dense_replace" in at else 0
    only = at.values.get("mlp_only_layers") or []
    step = at.integer("decoder_sparse_step", 1, default=1) if "decoder_sparse_step" in at else 1
    moe_layers = sum(
        index >= dense and index not in only and (step == 1 or (index + 1) % step == 0) for index in range(layers)
    )
    shared = at.integer("shared_expert_intermediate_size", 0, default=0)
    shared = shared or at.integer("n_shared_experts", 0, default=0) * intermediate
    return Experts(moe_layers, routed, per_token, intermediate, shared)


def _quantization(at: Fields, value_bytes: float) -> tuple[float, float, str]:
    """Return bytes of a linear weight and of an expert's weight, and the type of the products."""
    if "quantization_config" not in at:
        return value_bytes, value_bytes, "fp32" if value_bytes == 4 else "bf16"
    quantization = at.inner("quantization_config")
    method = quantization.text("quant_method", default="unknown")
    if method == "mxfp4":
        # gpt-oss: only the experts; vLLM computes them in 16 bits on Hopper.
        return value_bytes, _MXFP4_BYTES, "bf16"
    if method in ("fp8", "fbgemm_fp8"):
        return 1.0, 1.0, "fp8"
    bits = _bits(quantization)
    if bits is None:
        allowed = "mxfp4, fp8, or one that names its bits (awq, gptq, compressed-tensors, modelopt)"
        raise BadInputError("config.json.quantization_config.quant_method", method, allowed)
    return bits / 8, bits / 8, "fp8" if bits == 8 and _is_float(quantization) else "bf16"


def _bits(quantization: Fields) -> int | None:
    for name in ("bits", "w_bit"):
        if name in quantization:
            return quantization.integer(name, 2, 16)
    weights = _weights(quantization)
    if weights and "num_bits" in weights:
        return weights.integer("num_bits", 2, 16)
    algorithm = str(quantization.values.get("quant_algo", ""))
    return {"FP8": 8, "NVFP4": 4}.get(algorithm)


def _weights(quantization: Fields) -> Fields | None:
    groups = quantization.values.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    if isinstance(first, Mapping) and isinstance(first.get("weights"), Mapping):
        return Fields(quantization.path("config_groups.weights"), first["weights"])
    return None


def _is_float(quantization: Fields) -> bool:
    weights = _weights(quantization)
    return quantization.values.get("quant_algo") == "FP8" or bool(weights and weights.values.get("type") == "float")
