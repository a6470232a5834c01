"""Where blocks are, told from events alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kvstrata.contract.residency import Batch, Residency, cleared, lost, moments, read_batches

SIZE = 4
IDS = list(range(12))


def stored(
    hashes: list[str], tokens: list[int], parent: str | None = None, medium: str | None = "GPU"
) -> dict[str, Any]:
    return {
        "type": "BlockStored",
        "block_hashes": hashes,
        "parent_block_hash": parent,
        "token_ids": tokens,
        "block_size": SIZE,
        "medium": medium,
    }


def removed(*hashes: str) -> dict[str, Any]:
    return {"type": "BlockRemoved", "block_hashes": list(hashes), "medium": "GPU"}


def told(*batches: Batch) -> Residency:
    residency = Residency(SIZE)
    for batch in batches:
        residency.apply(batch)
    return residency


def test_the_same_tokens_are_the_same_block_whatever_workers_call_it() -> None:
    residency = told(
        Batch(1, "a", [stored(["1", "2", "3"], IDS)]),
        Batch(1, "b", [stored(["x"], IDS[:4])]),
        Batch(2, "b", [stored(["y"], IDS[4:8], parent="x")]),
    )
    blocks = residency.blocks(IDS)
    assert residency.held("a", blocks) == 3
    assert residency.held("b", blocks) == 2


def test_a_block_with_the_same_tokens_after_another_beginning_is_another() -> None:
    residency = told(Batch(1, "a", [stored(["1", "2"], [9, 9, 9, 9, *IDS[4:8]])]))
    assert residency.held("a", residency.blocks(IDS)) == 0


def test_a_gap_ends_what_a_worker_holds() -> None:
    residency = told(Batch(1, "a", [stored(["1", "2", "3"], IDS)]), Batch(2, "a", [removed("2")]))
    assert residency.held("a", residency.blocks(IDS)) == 1


def test_a_removed_block_that_comes_back_is_held_again() -> None:
    residency = told(
        Batch(1, "a", [stored(["1", "2"], IDS[:8])]),
        Batch(2, "a", [removed("2")]),
        Batch(3, "a", [stored(["2", "3"], IDS[4:], parent="1")]),
    )
    assert residency.held("a", residency.blocks(IDS)) == 3


def test_only_whole_blocks_count() -> None:
    residency = told(Batch(1, "a", [stored(["1"], IDS[:4])]))
    assert len(residency.blocks(IDS[:7])) == 1


def test_blocks_below_the_gpu_are_not_the_engines_own() -> None:
    residency = told(Batch(1, "a", [stored(["1"], IDS[:4], medium="CPU_PINNED")]))
    assert residency.size("a") == 0


def test_blocks_after_an_unknown_parent_are_counted_and_not_guessed() -> None:
    residency = told(Batch(1, "a", [stored(["2"], IDS[4:8], parent="1")]))
    assert residency.orphans == 1
    assert residency.size("a") == 0


def test_a_killed_worker_holds_nothing() -> None:
    residency = told(Batch(1, "a", [stored(["1"], IDS[:4])]), cleared(2, "a"))
    assert residency.held("a", residency.blocks(IDS)) == 0


def test_moments_see_what_was_before_them() -> None:
    batches = [Batch(1, "a", [stored(["1"], IDS[:4])]), Batch(3, "a", [removed("1")])]
    residency = Residency(SIZE)
    seen = {}
    for index in moments(batches, [4.0, 2.0, 0.5], residency):
        seen[index] = residency.held("a", residency.blocks(IDS))
    assert seen == {2: 0, 1: 1, 0: 0}


def test_missing_batches_are_counted_and_a_new_start_is_not_one() -> None:
    numbers = [(1, "a", 0), (2, "a", 1), (3, "a", 4), (4, "a", 0), (5, "a", 1), (6, "b", 7)]
    assert lost(Batch(at, worker, [], number) for at, worker, number in numbers) == 2


def test_a_file_is_read_on_from_where_it_ended(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    line = json.dumps({"at": 1.0, "worker": "a", "seq": 0, "events": []})
    file.write_text('{"ready": true}\n' + line + "\n" + line[:10])
    found, offset = read_batches(file)
    assert [batch.worker for batch in found] == ["a"]
    with file.open("a") as more:
        more.write(line[10:] + "\n")
    found, _ = read_batches(file, offset)
    assert len(found) == 1
