"""How long a replica computes: a roofline of matrix products, attention, weights and KV.

Prefill of n tokens after c cached ones, in steps of at most `step_tokens` (vLLM's --max-num-batched-tokens):

    time = overhead + max(2 * P_active * n / F, weights(n) / M) + attention_flops(c, n) / F + KV read / M

F = tensor_parallel * peak FLOPS * MFU, M = tensor_parallel * HBM bytes/s * MBU. 2 * P_active FLOPs a token: Kaplan et
al., arXiv 2001.08361, section 2.1; rooflines of serving: Pope et al., arXiv 2211.05102. Products and attention are
kernels one after another, so their times add up; within a product, reading the weights and multiplying overlap.

Decoding one token for each of b sequences that hold t tokens together is the same step with n = b and t tokens of KV
read.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvstrata.plan.figures import Figure, assumed
from kvstrata.plan.gpus import Gpu
from kvstrata.plan.shape import KvLayout

MFU = assumed(0.65, "0.8 of what a large bf16 product reaches on an H100, 798 of 989 TFLOPS")
MBU = assumed(0.85, "0.95 of what a copy reaches on an H100, 3.0 of 3.35 TB/s")
STEP_OVERHEAD_S = assumed(0.002, "scheduler, sampling and launches of one step")
REQUEST_OVERHEAD_S = assumed(0.010, "HTTP, tokenizer, first scheduling")
HBM_SHARE = assumed(0.9, "vLLM's default --gpu-memory-utilization")
ACTIVATIONS_GIB = assumed(2.0, "activations, CUDA graphs and NCCL of one rank")
GIB = 1 << 30


@dataclass(frozen=True)
class Engine:
    """One replica: a model on `kv.tensor_parallel` GPUs."""

    gpu: Gpu
    kv: KvLayout
    mfu: Figure = MFU
    mbu: Figure = MBU
    step_tokens: int = 8192
    """vLLM's default on an H100 under `vllm serve`."""
    kv_cache_gib: float | None = None
    """HBM for KV of one rank where a site limits it; otherwise what weights leave."""

    @property
    def flops(self) -> float:
        """FLOPs a second that prefills reach."""
        return self.kv.tensor_parallel * self.gpu.peak(self.kv.shape.compute).value * 1e12 * self.mfu.value

    @property
    def memory_bps(self) -> float:
        """Bytes a second that steps read from HBM, of all ranks."""
        return self.kv.tensor_parallel * self.gpu.hbm_gbps.value * 1e9 * self.mbu.value

    @property
    def hbm_kv_bytes(self) -> float:
        """Bytes of HBM that one rank has for KV; negative where the weights do not fit."""
        if self.kv_cache_gib is not None:
            return self.kv_cache_gib * GIB
        weights = self.kv.shape.weight_bytes / self.kv.tensor_parallel
        return self.gpu.hbm_gib.value * GIB * HBM_SHARE.value - ACTIVATIONS_GIB.value * GIB - weights

    @property
    def hbm_tokens(self) -> int:
        """Tokens of KV that HBM holds, in sequences far longer than a window: one token's share of every full layer."""
        per_token = self.kv.layer_bytes * max(1, self.kv.shape.full_layers)
        return max(0, int(self.hbm_kv_bytes / per_token))

    def step_s(self, tokens: float, attention_flops: float, kv_tokens: float, sequences: int = 1) -> float:
        """Return the seconds of one step.

        Args:
            tokens: how many pass the model.
            attention_flops: of attention in this step, all layers.
            kv_tokens: tokens whose KV is read from HBM, of all sequences.
            sequences: over how many they spread; in layers with a window each has at most that many.
        """
        shape = self.kv.shape
        products = 2 * shape.active_parameters * tokens / self.flops
        weights = shape.touched_bytes(tokens) / self.memory_bps
        windowed = min(kv_tokens, sequences * shape.window) * shape.window_layers
        read = (kv_tokens * shape.full_layers + windowed) * self.kv.layer_bytes * self.kv.tensor_parallel
        return STEP_OVERHEAD_S.value + max(products, weights) + attention_flops / self.flops + read / self.memory_bps

    def prefill_s(self, tokens: int, cached: int = 0) -> float:
        """Return the seconds until the first token of a prompt of `tokens`, of which `cached` are there, alone."""
        return REQUEST_OVERHEAD_S.value + self.compute_s(tokens, cached)

    def compute_s(self, tokens: int, cached: int = 0) -> float:
        """Return the seconds of the steps alone that compute what is not cached: one token at least."""
        position, seconds = min(cached, tokens - 1), 0.0
        while position < tokens:
            new = min(self.step_tokens, tokens - position)
            seconds += self.step_s(new, self.kv.shape.attention_flops(position, new), position)
            position += new
        return seconds

    def break_even_gbps(self, tokens: int) -> float:
        """Return 10^9 bytes/s of stored KV at which loading `tokens` takes as long as computing them.

        Without attention and overhead: bytes per token * FLOPS * MFU / (2 * P_active), as src/kvstrata/l2/breakeven.py
        has it.
        """
        return tokens * self.kv.stored_bytes_per_token / self.compute_s(tokens) / 1e9
