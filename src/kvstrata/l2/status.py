"""What a tier knows of itself and of its endpoints, for report_status and the metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kvstrata.l2.keeper import Keeper
from kvstrata.l2.ledger import Ledger
from kvstrata.l2.pool import Endpoint

if TYPE_CHECKING:
    from kvstrata.l2.tier import Tier


def status_of(tier: Tier) -> dict[str, Any]:
    """Return what is known, without asking any store; JSON-safe. Bytes, seconds, bytes/s."""
    up = sum(endpoint.breaker.closed for endpoint in tier.endpoints)
    return {
        "is_healthy": up > 0,
        "namespace": tier.config.namespace,
        "placement": tier.config.placement,
        "stripe_width": tier.config.stripe_width,
        "piece_bytes": tier.config.piece_bytes,
        "endpoints_up": up,
        "used_bytes": tier.used_bytes,
        "capacity_bytes": sum(ledger.capacity_bytes for ledger in tier.ledgers),
        "locked_chunks": len(tier.locks),
        "counters": tier.counters.report(),
        "policy": tier.policy.report(),
        "break_even": tier.break_even.report(),
        "endpoints": {
            endpoint.name: _endpoint(endpoint, ledger, keeper)
            for endpoint, ledger, keeper in zip(tier.endpoints, tier.ledgers, tier.keepers)
        },
    }


def _endpoint(endpoint: Endpoint, ledger: Ledger, keeper: Keeper) -> dict[str, Any]:
    breaker = endpoint.breaker
    age = -1.0 if breaker.last_ok is None else round(time.time() - breaker.last_ok, 3)
    return {
        "up": breaker.closed,
        "node": endpoint.config.node,
        "breaker": breaker.state,
        "breaker_opened": breaker.opened,
        "last_failure": breaker.reason,
        "last_ok_age_s": age,
        "writes_refused": endpoint.writes_refused,
        "used_bytes": ledger.used_bytes or 0,
        "used_known": ledger.used_bytes is not None,
        "capacity_bytes": ledger.capacity_bytes,
        "physical_bytes": keeper.physical_bytes,
        "chunks": ledger.chunks,
        "namespaces": ledger.by_namespace,
        "evicts_here": keeper.holds_lease,
        "evicted_chunks": keeper.evicted_chunks,
        "evicted_bytes": keeper.evicted_bytes,
        "compactions": keeper.compactions,
        "loaded_bytes": endpoint.loaded_bytes,
        "stored_bytes": endpoint.stored_bytes,
        "queued_bytes": endpoint.store.queued_bytes,
        "load_bytes_per_s": round(endpoint.rate.bytes_per_s or 0.0),
        "last_fault": endpoint.fault,
        "counters": endpoint.counters.report(),
        "latency": {stage: histogram.report() for stage, histogram in endpoint.histograms.items()},
    }
