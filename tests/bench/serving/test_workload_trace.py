"""Replay of traces in Mooncake's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving import workloads
from kvstrata.bench.serving.workloads import trace, trace_sample
from kvstrata.bench.serving.workloads.vocabulary import Vocabulary

VOCABULARY = Vocabulary(tuple(range(1000, 9000)))


def line(**changed: Any) -> str:
    good = {"timestamp": 1000, "input_length": 1030, "output_length": 50, "hash_ids": [1, 2, 3]}
    return json.dumps({name: value for name, value in (good | changed).items() if value is not None})


def written(folder: Path, *lines: str) -> dict[str, str]:
    path = folder / "trace.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return {"file": str(path)}


def test_equal_hash_ids_are_equal_tokens_and_others_are_not(tmp_path: Path) -> None:
    given = written(tmp_path, line(), line(hash_ids=[1, 2, 4], input_length=1500))
    one, other = (
        list(held.turns[0].prompt) for held in workloads.build("trace", VOCABULARY, 1, given=given).conversations
    )
    assert (len(one), len(other)) == (1030, 1500)
    assert one[:1024] == other[:1024]
    assert one[1024:] != other[1024:1030]


def test_a_block_is_the_same_wherever_it_stands(tmp_path: Path) -> None:
    given = written(tmp_path, line(hash_ids=[7, 8, 9]), line(hash_ids=[8, 1, 2]))
    one, other = (
        list(held.turns[0].prompt) for held in workloads.build("trace", VOCABULARY, 1, given=given).conversations
    )
    assert one[512:1024] == other[:512]


def test_requests_are_due_at_their_timestamps_from_the_first_on_at_the_speed_asked_for(tmp_path: Path) -> None:
    given = written(tmp_path, line(timestamp=4000), line(timestamp=1000), line(timestamp=1500.5))
    workload = workloads.build("trace", VOCABULARY, 1, given=given | {"speed": "2"})
    assert [held.start_s for held in workload.conversations] == [0.0, 0.25025, 1.5]
    assert workload.open_loop


def test_smaller_blocks_shrink_prompts_and_keep_what_is_shared(tmp_path: Path) -> None:
    given = written(tmp_path, line(), line(hash_ids=[1, 2, 4], input_length=1536))
    workload = workloads.build("trace", VOCABULARY, 1, given=given | {"block": "32"})
    one, other = (list(held.turns[0].prompt) for held in workload.conversations)
    assert (len(one), len(other)) == (64, 96)
    assert one == other[:64]
    assert "block 32 instead of 512" in str(workload.parameters["note"])


def test_the_sample_is_what_its_generator_writes() -> None:
    assert trace.SAMPLE.read_text().splitlines() == list(trace_sample.generate())


def test_the_sample_is_small_and_has_something_to_find_again() -> None:
    workload = workloads.build("trace", VOCABULARY, 1)
    assert 100 <= workload.requests <= 400
    assert 0.4 < workloads.working_set_tokens(workload).best_hit_rate < 0.9


def test_a_share_of_a_trace_is_its_first_requests() -> None:
    whole, part = workloads.build("trace", VOCABULARY, 1), workloads.build("trace", VOCABULARY, 1, scale=0.1)
    assert [held.name for held in part.conversations] == [held.name for held in whole.conversations[:24]]
    assert "requests 24 instead of 0" in str(part.parameters["note"])


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (line(timestamp=-1), "timestamp: given -1; allowed: a number of milliseconds from 0"),
        (line(timestamp=None), "timestamp: not given; allowed: a number of milliseconds from 0"),
        (line(timestamp=True), "timestamp: given true; allowed"),
        (line(input_length=0), "input_length: given 0; allowed: a whole number of tokens from 1"),
        (line(output_length="9"), 'output_length: given "9"; allowed: a whole number of tokens from 1'),
        (
            line(hash_ids=[1, 2]),
            "hash_ids: given [1, 2]; allowed: 3 whole numbers from 0, one for every 512 of input_length's 1030 tokens",
        ),
        (line(hash_ids=[1, 2, -3]), "hash_ids: given [1, 2, -3]; allowed: 3 whole numbers"),
        ("[1]", "given [1]; allowed: a JSON object"),
        ("{", "given {; allowed: a JSON object"),
    ],
)
def test_a_wrong_line_is_named_with_file_line_field_given_and_allowed(tmp_path: Path, bad: str, said: str) -> None:
    given = written(tmp_path, line(), "", bad)
    with pytest.raises(BenchError) as error:
        workloads.build("trace", VOCABULARY, 1, given=given)
    assert str(error.value).startswith(f"trace {given['file']}, line 3: ")
    assert said in str(error.value)


def test_a_file_that_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="No such file"):
        trace.read(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(BenchError, match="no request in it"):
        trace.read(tmp_path / "empty.jsonl")
