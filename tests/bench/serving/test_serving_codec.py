"""Samples and phases in JSON."""

from __future__ import annotations

import json

import pytest

from kvstrata.bench.serving import codec
from kvstrata.bench.serving.model import ClientHealth, Phase, RequestSample, TierTokens

GOOD = RequestSample("c-1", 2, 0.5, 0.500001, 0.25, (0.01, 0.0, 4000.5), 4000.8, 900, 4, 512, None, (1, 128_255, 0, 7))
BAD = RequestSample("c-2", 0, 1.0, 1.0, None, (), 2.0, 100, 0, error="timeout: no answer within 1 s")


def test_a_sample_comes_back_from_json_as_it_was() -> None:
    for sample in (GOOD, BAD):
        text = json.dumps(codec.sample_to_json(sample))
        assert codec.sample_from_json(json.loads(text)) == sample


def test_the_documented_decoder_reads_the_gaps() -> None:
    numpy = pytest.importorskip("numpy")
    import base64
    import zlib

    text = codec.encode_gaps((0.0, 1.25, 0.000001))
    assert list(numpy.frombuffer(zlib.decompress(base64.b64decode(text)), "<u4") / 1e6) == [0.0, 1.25, 0.000001]


def test_a_gap_longer_than_the_form_holds_is_capped_and_not_wrapped() -> None:
    assert codec.decode_gaps(codec.encode_gaps((5000.0,))) == (4294.967295,)


def test_what_is_not_known_is_not_written() -> None:
    assert "ttft_s" not in codec.sample_to_json(BAD)
    assert "output_ids" not in codec.sample_to_json(BAD)


def test_a_phase_comes_back_from_json_as_it_was() -> None:
    phase = Phase(
        "dram",
        1,
        "poc",
        "warm",
        "2026-01-01T00:00:00+00:00",
        12.5,
        (GOOD, BAD),
        {"vllm:0": {"vllm:prompt_tokens_total": 1.0}},
        {"vllm:0": {"vllm:prompt_tokens_total": 901.0}},
        TierTokens(1, 2, None, 4),
        client=ClientHealth(0.001, 0.002, 0.003, 0.004, 0.2),
        notes=("scaled",),
    )
    assert codec.phase_from_json(json.loads(json.dumps(codec.phase_to_json(phase)))) == phase
