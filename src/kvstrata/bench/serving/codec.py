"""The JSON forms of what was measured (docs/workloads.md describes the fields).

Gaps between tokens are most of a report: they are kept as whole microseconds, each an unsigned 32-bit little-endian
number, deflated and written in base64. To read them anywhere:

    numpy.frombuffer(zlib.decompress(base64.b64decode(text)), "<u4") / 1e6
"""

from __future__ import annotations

import base64
import sys
import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from kvstrata.bench.serving.model import ClientHealth, Json, Phase, RequestSample, TierTokens

_MICRO = 1_000_000
_LONGEST_US = 2**32 - 1


def encode_gaps(gaps: Sequence[float]) -> str:
    """Return the gaps (seconds) in the compact form; what is above 4,294 s is kept as that."""
    return _pack(min(round(gap * _MICRO), _LONGEST_US) for gap in gaps)


def decode_gaps(text: str) -> tuple[float, ...]:
    """Return the gaps in seconds, exact to a microsecond."""
    return tuple(number / _MICRO for number in _unpack(text))


def encode_ids(ids: Sequence[int]) -> str:
    """Return token ids in the same form as gaps."""
    return _pack(ids)


def decode_ids(text: str) -> tuple[int, ...]:
    """Return the token ids."""
    return tuple(_unpack(text))


def sample_to_json(sample: RequestSample) -> dict[str, Json]:
    """Return a sample's JSON form: what is None is left out, times are rounded to microseconds."""
    form: dict[str, Json] = {
        "conversation": sample.conversation,
        "turn": sample.turn,
        "scheduled_s": round(sample.scheduled_s, 6),
        "started_s": round(sample.started_s, 6),
        "ttft_s": None if sample.ttft_s is None else round(sample.ttft_s, 6),
        "e2e_s": round(sample.e2e_s, 6),
        "itl_us": encode_gaps(sample.itl_s) if sample.itl_s else None,
        "prompt_tokens": sample.prompt_tokens,
        "output_tokens": sample.output_tokens,
        "cached_tokens": sample.cached_tokens,
        "error": sample.error,
        "output_ids": None if sample.output_ids is None else encode_ids(sample.output_ids),
    }
    return {name: value for name, value in form.items() if value is not None}


def sample_from_json(form: Mapping[str, Any]) -> RequestSample:
    """Return the sample of a JSON form."""
    ids = form.get("output_ids")
    return RequestSample(
        conversation=form["conversation"],
        turn=form["turn"],
        scheduled_s=form["scheduled_s"],
        started_s=form["started_s"],
        ttft_s=form.get("ttft_s"),
        itl_s=decode_gaps(form["itl_us"]) if "itl_us" in form else (),
        e2e_s=form["e2e_s"],
        prompt_tokens=form["prompt_tokens"],
        output_tokens=form["output_tokens"],
        cached_tokens=form.get("cached_tokens"),
        error=form.get("error"),
        output_ids=None if ids is None else decode_ids(ids),
    )


def phase_to_json(phase: Phase) -> dict[str, Json]:
    """Return a phase's JSON form; `pass_` is called `pass` there."""
    return {
        "configuration": phase.configuration,
        "round": phase.round,
        "workload": phase.workload,
        "pass": phase.pass_,
        "started_at": phase.started_at,
        "duration_s": phase.duration_s,
        "driver": phase.driver,
        "client": asdict(phase.client),
        "tiers": None if phase.tiers is None else asdict(phase.tiers),
        "before": {source: dict(values) for source, values in phase.before.items()},
        "after": {source: dict(values) for source, values in phase.after.items()},
        "notes": list(phase.notes),
        "error": phase.error,
        "samples": [sample_to_json(sample) for sample in phase.samples],
    }


def phase_from_json(form: Mapping[str, Any]) -> Phase:
    """Return the phase of a JSON form."""
    tiers = form.get("tiers")
    return Phase(
        configuration=form["configuration"],
        round=form["round"],
        workload=form["workload"],
        pass_=form["pass"],
        started_at=form["started_at"],
        duration_s=form["duration_s"],
        samples=tuple(sample_from_json(sample) for sample in form["samples"]),
        before=form.get("before", {}),
        after=form.get("after", {}),
        tiers=None if tiers is None else TierTokens(**tiers),
        driver=form.get("driver", "own"),
        client=ClientHealth(**form.get("client", {})),
        notes=tuple(form.get("notes", ())),
        error=form.get("error"),
    )


def _pack(numbers: Any) -> str:
    packed = array("I", numbers)
    if sys.byteorder == "big":
        packed.byteswap()
    return base64.b64encode(zlib.compress(packed.tobytes(), 9)).decode()


def _unpack(text: str) -> array[int]:
    numbers = array("I")
    numbers.frombytes(zlib.decompress(base64.b64decode(text)))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
