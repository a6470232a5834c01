"""What the engines of a site count: the size of their own KV cache, and where their prompts' tokens came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kvstrata.bench.errors import BenchError
from kvstrata.verify.http import Service
from kvstrata.verify.prometheus import Samples

_SOURCES = "vllm:prompt_tokens_by_source_total"
_CONFIG = "vllm:cache_config_info"
# What a frontend of Dynamo tells of its workers, where their own figures lack it.
_BLOCKS, _SIZE = "dynamo_frontend_model_total_kv_blocks", "dynamo_frontend_model_kv_cache_block_size"


@dataclass(frozen=True)
class Counted:
    """One reading of an engine, or the difference of two. In tokens of prompts, but for `requests` that ended."""

    requests: int
    own_cache: int
    """Found in the engine's own cache, which is what a router can aim at."""
    other_tiers: int
    """Taken from LMCache or the stores, which any engine can."""
    computed: int

    def __sub__(self, other: Counted) -> Counted:
        """What was counted since `other`."""
        return Counted(
            self.requests - other.requests,
            self.own_cache - other.own_cache,
            self.other_tiers - other.other_tiers,
            self.computed - other.computed,
        )

    @property
    def prompt_tokens(self) -> int:
        """All of them."""
        return self.own_cache + self.other_tiers + self.computed


def read(engine: Service) -> Counted:
    """Read an engine's counters now; raises UnansweredError when it gives none."""
    samples = engine.metrics()

    def tokens_from(source: str) -> int:
        return round(samples.total(_SOURCES, source=source))

    return Counted(
        round(samples.total("vllm:request_success_total")),
        tokens_from("local_cache_hit"),
        tokens_from("external_kv_transfer"),
        tokens_from("local_compute"),
    )


def since(before: Mapping[str, Counted], after: Mapping[str, Counted]) -> dict[str, Counted]:
    """Return what each engine counted between two readings."""
    return {name: counted - before[name] for name, counted in after.items()}


def cache_size(name: str, engine: Samples, frontend: Samples | None) -> tuple[int, int]:
    """Return how many KV blocks an engine has for its own cache, and the tokens of each.

    Raises:
        BenchError: neither the engine nor a frontend tells.
    """
    for row, labels, _ in engine.rows:
        if row == _CONFIG:
            blocks, size = labels.get("num_gpu_blocks", ""), labels.get("block_size", "")
            if blocks.isdigit() and size.isdigit():
                return int(blocks), int(size)
    if frontend is not None:
        told = {row: round(value) for row, _, value in frontend.rows if row in (_BLOCKS, _SIZE)}
        if told.get(_BLOCKS) and told.get(_SIZE):
            return told[_BLOCKS], told[_SIZE]
    raise BenchError(f"{name} does not tell how large its KV cache is ({_CONFIG} with num_gpu_blocks and block_size)")
