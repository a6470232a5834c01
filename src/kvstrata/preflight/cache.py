"""Rules over how the caches use the stores: what kvstrata.l2 itself would refuse, found before a node is touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvstrata.l2.config import TierConfig
from kvstrata.l2.policy import make_policy
from kvstrata.preflight.problem import Problem

_FIELDS = {
    "lmcache_placement": "placement",
    "lmcache_stripe_width": "stripe_width",
    "lmcache_offload_policy": "policy",
    "lmcache_min_load_gbps": "min_load_gbps",
}
# vllm_lmcache_recheck_s of roles/vllm.
_RECHECK_S = 30
_ENDPOINT = {"host": "127.0.0.1", "port": 6666, "capacity_bytes": 1 << 30}


def judge_cache(where: str, given: Mapping[str, Any]) -> list[Problem]:
    """Return a problem for each of the variables of the tier of stores that cannot work.

    Each is tried by itself on a configuration that is right otherwise, so that the message can name the variable.
    """
    right: dict[str, Any] = {"endpoints": [_ENDPOINT], "namespace": "kvs-preflight", "local_node": where}
    tries = {name: {field: given[name]} for name, field in _FIELDS.items() if name in given}
    options = given.get("lmcache_l2_options", {})
    if isinstance(options, Mapping):
        tries |= {f"lmcache_l2_options.{name}": {name: value} for name, value in options.items()}
    problems = []
    if "lmcache_stores_ca" in given and "kvrocks_tls" not in given:
        allowed = "only together with kvrocks_tls: without it the stores do not speak TLS"
        problems.append(Problem(where, "lmcache_stores_ca", given["lmcache_stores_ca"], allowed))
    policy = given.get("lmcache_offload_policy", {})
    policy = policy.get("name", "all") if isinstance(policy, Mapping) else "all"
    if policy != "all" and given.get("vllm_lmcache_recheck_s", _RECHECK_S) != 0:
        allowed = f"0 with lmcache_offload_policy {policy}, which counts the lookups of every prompt (docs/offload.md)"
        asked = given.get("vllm_lmcache_recheck_s", f"its default, {_RECHECK_S}")
        problems.append(Problem(where, "vllm_lmcache_recheck_s", asked, allowed))
    for variable, fields in tries.items():
        try:
            make_policy(**TierConfig.from_dict({**right, **fields}).policy)
        except (ValueError, TypeError) as error:
            problems.append(Problem(where, variable, next(iter(fields.values())), f"what docs/l2.md lists ({error})"))
    return problems
