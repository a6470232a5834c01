"""config.json of several families, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvstrata.models.lab_llama import Shape as LabShape
from kvstrata.models.lab_llama import config as lab_config
from kvstrata.plan.config_json import parse_config, read_config
from kvstrata.plan.reading import BadInputError
from kvstrata.plan.shape import KvLayout, Shape

LLAMA: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 100,
}


def parsed(**changes: Any) -> Shape:
    values = {name: value for name, value in {**LLAMA, **changes}.items() if value is not None}
    return parse_config(values, "m", "test")


def test_heads_divide_the_hidden_size_where_no_head_size_is_given() -> None:
    assert parsed().head_dim == 8
    assert parsed(head_dim=32).head_dim == 32


def test_without_kv_heads_there_are_as_many_as_heads() -> None:
    assert parsed(num_key_value_heads=None).kv_heads == 8


def test_mixtral_has_experts_in_every_layer() -> None:
    experts = parsed(num_local_experts=8, num_experts_per_tok=2).experts
    assert experts
    assert (experts.layers, experts.routed, experts.per_token, experts.intermediate) == (4, 8, 2, 128)


def test_deepseek_begins_with_dense_layers_and_shares_experts() -> None:
    shape = parsed(
        n_routed_experts=16,
        num_experts_per_tok=4,
        moe_intermediate_size=32,
        n_shared_experts=2,
        first_k_dense_replace=1,
    )
    assert shape.experts
    assert (shape.dense_layers, shape.experts.layers, shape.experts.shared_intermediate) == (1, 3, 64)


def test_mistral_has_a_window_in_every_layer_and_qwen_none_unless_it_says_so() -> None:
    assert (parsed(sliding_window=16).window_layers, parsed(sliding_window=16).full_layers) == (4, 0)
    assert parsed(sliding_window=16, use_sliding_window=False).window_layers == 0
    assert parsed(sliding_window=16, use_sliding_window=True, max_window_layers=3).window_layers == 1


def test_the_text_part_of_a_multimodal_model_counts() -> None:
    shape = parse_config({"text_config": LLAMA, "vision_config": {"hidden_size": 1}}, "m", "test")
    assert shape.hidden == 64


@pytest.mark.parametrize(
    ("quantization", "linear", "compute"),
    [
        ({"quant_method": "fp8"}, 1.0, "fp8"),
        ({"quant_method": "awq", "bits": 4}, 0.5, "bf16"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"num_bits": 8, "type": "float"}}},
            },
            1.0,
            "fp8",
        ),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 0.5, "bf16"),
    ],
)
def test_quantized_weights_are_smaller(quantization: dict[str, Any], linear: float, compute: str) -> None:
    shape = parsed(quantization_config=quantization)
    assert (shape.linear_bytes, shape.compute) == (linear, compute)


def test_kv_is_in_the_type_of_the_model() -> None:
    assert KvLayout(parsed(torch_dtype="float32"), 1).stored_bytes_per_token == 2 * 4 * 2 * 8 * 4


def test_the_labs_own_model_is_read_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(lab_config(LabShape())))
    shape = read_config(tmp_path)
    assert shape.parameters / 1e6 == pytest.approx(136, rel=0.01)
    assert KvLayout(shape, 1).stored_bytes_per_token == 2 * 12 * 4 * 64 * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": None}, "config.json.num_hidden_layers is None; allowed: a whole number"),
        ({"num_key_value_heads": 9}, "config.json.num_key_value_heads is 9; allowed: a whole number, 1 to 8"),
        ({"hidden_size": "big"}, "config.json.hidden_size is 'big'; allowed: a whole number"),
        ({"hidden_size": 63}, "config.json.head_dim is None; allowed"),
        ({"dtype": "int8"}, "config.json.dtype is 'int8'; allowed: float32"),
        ({"quantization_config": {"quant_method": "magic"}}, "quant_method is 'magic'; allowed: mxfp4, fp8"),
        ({"layer_types": ["full_attention"]}, "layer_types is .*; allowed: a list with one kind for each of 4 layers"),
        ({"layer_types": ["sliding_attention"] * 4}, "config.json.sliding_window is None; allowed: a number of tokens"),
        ({"layer_types": ["linear_attention"] * 4}, "layer_types is .*; allowed: full_attention and sliding_attention"),
    ],
)
def test_what_cannot_be_planned_is_refused_by_its_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        parsed(**changes)


@pytest.mark.parametrize("text", ["", "[]", "{", "3"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(BadInputError, match=r"model is .*config.json'; allowed: a"):
        read_config(path)


def test_a_folder_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="No such file"):
        read_config(tmp_path)
