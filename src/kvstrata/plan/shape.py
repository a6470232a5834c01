"""A model's shape: its parameters, weights, and the KV that a token leaves. Arithmetic on config.json."""

from __future__ import annotations

from dataclasses import dataclass

from kvstrata.plan.reading import BadInputError

KV_BYTES = {"auto": 0.0, "bfloat16": 2.0, "float16": 2.0, "fp8": 1.0, "fp8_e4m3": 1.0, "fp8_e5m2": 1.0}
"""Bytes of one value by vLLM's --kv-cache-dtype; `auto` is the model's own type."""


@dataclass(frozen=True)
class Mla:
    """Multi-head latent attention: what is kept of a token is one latent and one rotary key for all heads.

    DeepSeek-V2, arXiv 2405.04434, section 2.1.
    """

    kv_lora_rank: int
    q_lora_rank: int
    """0 where queries are not compressed."""
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int


@dataclass(frozen=True)
class Experts:
    """The mixture of experts of some layers."""

    layers: int
    routed: int
    per_token: int
    intermediate: int
    shared_intermediate: int = 0
    """Of all shared experts together."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder. Layers are `full_layers` with full attention and `window_layers` that see `window` tokens."""

    name: str
    source: str
    hidden: int
    full_layers: int
    heads: int
    kv_heads: int
    head_dim: int
    dense_layers: int
    intermediate: int
    vocabulary: int
    window_layers: int = 0
    window: int = 0
    tied: bool = False
    mla: Mla | None = None
    experts: Experts | None = None
    value_bytes: float = 2.0
    """Of activations, embeddings, and KV where its type is `auto`."""
    linear_bytes: float = 2.0
    """Of a weight of attention and dense MLP layers."""
    expert_bytes: float = 2.0
    """Of a weight of an expert."""
    compute: str = "bf16"
    """Type of the matrix products, a key of Gpu.tflops."""
    max_positions: int = 0

    @property
    def layers(self) -> int:
        """All layers."""
        return self.full_layers + self.window_layers

    @property
    def attention_parameters(self) -> int:
        """Parameters of one layer's attention."""
        if self.mla is None:
            return self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        mla = self.mla
        query_dim = self.heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
        query = mla.q_lora_rank * (self.hidden + query_dim) if mla.q_lora_rank else self.hidden * query_dim
        latent = self.hidden * (mla.kv_lora_rank + mla.qk_rope_head_dim)
        up = mla.kv_lora_rank * self.heads * (mla.qk_nope_head_dim + mla.v_head_dim)
        return query + latent + up + self.heads * mla.v_head_dim * self.hidden

    @property
    def embedding_parameters(self) -> int:
        """Parameters of one of the two vocabulary tables."""
        return self.vocabulary * self.hidden

    @property
    def _linear_parameters(self) -> int:
        """Attention, dense MLPs, shared experts, routers and norms: what every token passes."""
        count = self.layers * (self.attention_parameters + 2 * self.hidden) + self.hidden
        count += self.dense_layers * 3 * self.hidden * self.intermediate
        if self.experts:
            moe = self.experts
            count += moe.layers * self.hidden * (moe.routed + 3 * moe.shared_intermediate)
        return count

    @property
    def _one_expert(self) -> int:
        return 3 * self.hidden * self.experts.intermediate if self.experts else 0

    @property
    def parameters(self) -> int:
        """All parameters; biases and the small norms of queries and keys are left out (below 0.1 %)."""
        routed = self.experts.layers * self.experts.routed * self._one_expert if self.experts else 0
        return self._linear_parameters + routed + self.embedding_parameters * (1 if self.tied else 2)

    @property
    def active_parameters(self) -> int:
        """Parameters that multiply for one token: all but the input embedding, which is looked up, and idle experts."""
        routed = self.experts.layers * self.experts.per_token * self._one_expert if self.experts else 0
        return self._linear_parameters + routed + self.embedding_parameters

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights of one replica."""
        return self.touched_bytes(float("inf")) + self.embedding_parameters * self.value_bytes * (0 if self.tied else 1)

    def touched_bytes(self, tokens: float) -> float:
        """Return the bytes of weights that a step with `tokens` tokens reads.

        Of E experts with k for each token, a step touches E * (1 - (1 - k/E)^tokens), if routing is even. The input
        embedding is a lookup and reads next to nothing.
        """
        routed = 0.0
        if self.experts:
            moe = self.experts
            touched = moe.routed * (1 - (1 - moe.per_token / moe.routed) ** tokens)
            routed = moe.layers * touched * self._one_expert * self.expert_bytes
        return self._linear_parameters * self.linear_bytes + routed + self.embedding_parameters * self.value_bytes

    def attention_flops(self, cached: int, new: int) -> float:
        """Return the FLOPs of attention itself for `new` tokens after `cached` ones: the quadratic part.

        Each pair of a token and one that it sees costs 2 * dim for QK and 2 * dim for PV in each head (Kaplan et al.,
        arXiv 2001.08361, table 1). A token at position i sees i + 1 tokens, in a window at most `window`. MLA computes
        prefills with its uncompressed heads, of qk_nope + qk_rope and v_head_dim.
        """
        if self.mla:
            dims = self.mla.qk_nope_head_dim + self.mla.qk_rope_head_dim + self.mla.v_head_dim
        else:
            dims = 2 * self.head_dim
        pairs = self.full_layers * seen(cached, new) + self.window_layers * seen(cached, new, self.window)
        return 2.0 * self.heads * dims * pairs


def seen(cached: int, new: int, window: int | None = None) -> int:
    """Return how many tokens `new` ones after `cached` see together, themselves included."""
    if window is None:
        return new * cached + new * (new + 1) // 2
    growing = min(new, max(0, window - cached))
    return growing * cached + growing * (growing + 1) // 2 + (new - growing) * window


@dataclass(frozen=True)
class KvLayout:
    """The KV of one replica: how many bytes a token leaves, on each GPU and in the tiers.

    GQA splits its KV heads over `tensor_parallel` ranks; with fewer heads than ranks each rank holds a whole one, so
    they are replicated. MLA's latent belongs to all heads, so every rank holds it; LMCache 0.5.6 stores it once and
    hands it to every rank (integration/vllm/utils.py, mla_only). Sliding-window layers keep at most `window` tokens in
    HBM; LMCache stores and loads all of their tokens (--separate-object-groups, which bounds loads, is off by default).
    """

    shape: Shape
    tensor_parallel: int
    kv_dtype: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what vLLM would refuse.

        Raises:
            BadInputError: for an unknown kv_dtype, or heads that cannot be split over the ranks.
        """
        if self.kv_dtype not in KV_BYTES:
            raise BadInputError("kv_dtype", self.kv_dtype, ", ".join(KV_BYTES))
        ranks, heads = self.tensor_parallel, self.shape.heads
        if ranks < 1 or heads % ranks:
            raise BadInputError("tensor_parallel", ranks, f"a divisor of the model's {heads} attention heads")
        kv = self.shape.kv_heads
        if self.shape.mla is None and kv % ranks and ranks % kv:
            raise BadInputError("tensor_parallel", ranks, f"a divisor or a multiple of the model's {kv} KV heads")

    @property
    def value_bytes(self) -> float:
        """Bytes of one value of KV."""
        return KV_BYTES[self.kv_dtype] or self.shape.value_bytes

    @property
    def layer_bytes(self) -> float:
        """Bytes of a token in one layer on one rank."""
        if self.shape.mla:
            return (self.shape.mla.kv_lora_rank + self.shape.mla.qk_rope_head_dim) * self.value_bytes
        return 2 * max(1, self.shape.kv_heads // self.tensor_parallel) * self.shape.head_dim * self.value_bytes

    @property
    def rank_bytes_per_token(self) -> float:
        """Bytes of a token on one rank, in all layers: what crosses one GPU's link when a tier is loaded."""
        return self.layer_bytes * self.shape.layers

    @property
    def stored_bytes_per_token(self) -> float:
        """Bytes of a token in DRAM and on the drives, of all ranks."""
        return self.rank_bytes_per_token * (1 if self.shape.mla else self.tensor_parallel)

    def hbm_rank_bytes(self, tokens: int) -> float:
        """Return the bytes that a sequence of `tokens` takes in the HBM of one rank."""
        windowed = min(tokens, self.shape.window) if self.shape.window else 0
        return self.layer_bytes * (self.shape.full_layers * tokens + self.shape.window_layers * windowed)
