"""The last proof that succeeded, kept as JSON in the site's state folder."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FILE = "tiers-proof.json"
SCHEMA = 1


@dataclass(frozen=True)
class Step:
    """One sending of the prompt: where, how fast, and where its tokens came from."""

    name: str
    node: str
    ttft_s: float
    prompt_tokens: int
    hit_tokens: int
    l1_tokens: int
    l2_tokens: int


@dataclass(frozen=True)
class Proof:
    """A successful proof. `proven_at` is an ISO time in UTC, `duration_s` is in seconds."""

    fingerprint: str
    proven_at: str
    seed: str
    duration_s: float
    steps: tuple[Step, ...]


def load(folder: Path) -> Proof | None:
    """The recorded proof; None when there is none that can be read."""
    try:
        document: dict[str, Any] = json.loads((folder / FILE).read_text())
        if document.pop("schema") != SCHEMA:
            return None
        steps = tuple(Step(**step) for step in document.pop("steps"))
        return Proof(steps=steps, **document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # A broken record proves nothing: the proof runs again.
        return None


def save(folder: Path, proof: Proof) -> None:
    """Replace the recorded proof, all or nothing; raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{FILE}.{os.getpid()}"
    temporary.write_text(json.dumps({"schema": SCHEMA, **asdict(proof)}, indent=2) + "\n")
    temporary.replace(folder / FILE)
