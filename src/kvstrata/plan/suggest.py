"""The inventory variables that a plan comes to, as roles accept them."""

from __future__ import annotations

from typing import Any

import yaml

from kvstrata.plan.assess import Plan
from kvstrata.plan.nodes import suggested_store_gib
from kvstrata.plan.tiers import TierName

PLACEHOLDER = "/dev/disk/by-id/nvme-REPLACE-"
"""Begins the device of each drive: no such drive exists, so preflight refuses it until it is replaced."""
SHORT_LIFE_YEARS = 5.0


def suggested(plan: Plan) -> dict[str, Any]:
    """Return the variables by name; kvstrata_model is not among them, for a plan knows neither path nor revision."""
    found: dict[str, Any] = {
        "kvstrata_accelerator": plan.deployment.accelerator,
        "kvstrata_gpus": plan.node.gpus if plan.deployment.accelerator == "cuda" else 0,
        "kvstrata_replicas": plan.replicas,
        "kvstrata_chunk_tokens": plan.deployment.chunk_tokens,
        "kvstrata_dram_cache_gib": plan.dram_cache_gib,
    }
    if plan.node.drives:
        found["kvstrata_drives"] = [
            {
                "name": drive.name,
                "device": f"{PLACEHOLDER}{drive.name}",
                "store_gib": drive.store_gib or suggested_store_gib(drive.size_gb),
            }
            for drive in plan.node.drives
        ]
        found["lmcache_min_load_gbps"] = plan.min_load_gbps
        found["lmcache_offload_policy"] = policy(plan)
        if found["lmcache_offload_policy"]["name"] != "all":
            # It counts lookups, so that LMCache must be asked about every prompt.
            found["vllm_lmcache_recheck_s"] = 0
    return found


def policy(plan: Plan) -> dict[str, Any]:
    """Return the write policy: as configured, and where drives would not last five years, one that writes less."""
    configured = dict(plan.deployment.write_policy)
    lives = [wear.years for wear in plan.wear if wear.years is not None]
    if configured == {"name": "all"} and lives and min(lives) < SHORT_LIFE_YEARS:
        return {"name": "second_use", "only_when_full": True}
    return configured


def as_yaml(plan: Plan) -> str:
    """Return the block for group_vars, with what a reader must decide as comments."""
    lines = ["# Suggested by `kvstrata plan`."]
    ranks = plan.deployment.tensor_parallel
    lines.append(f"# kvstrata_model, yours to write: tensor_parallel {ranks}, kv_dtype {plan.deployment.kv_dtype}.")
    if plan.node.drives:
        lines.append("# Devices and their names: ansible-playbook playbooks/nvme_discover.yml prints them.")
    hurting = [tier.tier.name for tier in plan.hurting]
    if TierName.SSD in hurting:
        lines.append(
            "# The SSD tier hurts as planned: with lmcache_min_load_gbps its lookups are cut while it is too slow."
        )
    if plan.node.drives and policy(plan)["name"] != "all":
        lines.append(
            "# Drives would wear out within five years: this writes less, and can cost hits (docs/offload.md)."
        )
    return "\n".join(lines) + "\n" + yaml.safe_dump(suggested(plan), sort_keys=False)
