"""The site's own baseline: the figures of a load that somebody found good, kept as JSON in its state folder."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kvstrata.cluster import Cluster, ThroughputSettings
from kvstrata.verify.throughput.figures import Figures

FILE = "throughput.json"
SCHEMA = 1


@dataclass(frozen=True)
class Conditions:
    """What figures hold for; they tell nothing about other conditions. Lengths are in tokens."""

    model: str
    revision: str
    dtype: str
    replicas: int
    nodes: int
    concurrency: int
    requests: int
    prompt_tokens: int
    output_tokens: int

    @classmethod
    def of(cls, cluster: Cluster) -> Conditions:
        """Those of a site as its inventory is now."""
        model, settings = cluster.model, cluster.verify.throughput
        return cls(
            model=model.name,
            revision=model.revision,
            dtype=model.dtype,
            replicas=len(cluster.engines),
            nodes=len(cluster.nodes),
            concurrency=settings.concurrency,
            requests=settings.requests,
            prompt_tokens=prompt_tokens(settings, model.max_model_len),
            output_tokens=settings.output_tokens,
        )

    def other_than(self, before: Conditions) -> str:
        """How they differ from those of before, in words; empty when they do not."""
        mine, its = asdict(self), asdict(before)
        return ", ".join(f"{name} {mine[name]}, was {its[name]}" for name in mine if mine[name] != its[name])


@dataclass(frozen=True)
class Baseline:
    """`saved_at` is an ISO time in UTC; `versions` are those of kvstrata and of the engines, for people."""

    saved_at: str
    conditions: Conditions
    versions: dict[str, str]
    figures: Figures


def prompt_tokens(settings: ThroughputSettings, max_model_len: int) -> int:
    """The length of prompts, less where the model's context holds less beside the answer."""
    return max(1, min(settings.prompt_tokens, max_model_len - settings.output_tokens - max_model_len // 16))


def load(folder: Path) -> Baseline | None:
    """The baseline; None when there is none that can be read."""
    try:
        document: dict[str, Any] = json.loads((folder / FILE).read_text())
        if document["schema"] != SCHEMA:
            return None
        conditions, figures = Conditions(**document["conditions"]), Figures(**document["figures"])
        return Baseline(document["saved_at"], conditions, dict(document["versions"]), figures)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def save(folder: Path, baseline: Baseline) -> None:
    """Replace the baseline, all or nothing; raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{FILE}.{os.getpid()}"
    temporary.write_text(json.dumps({"schema": SCHEMA, **asdict(baseline)}, indent=2) + "\n")
    temporary.replace(folder / FILE)
