"""A few rounds of the fuzzer; an hour of it is a command of its own, see docs/drives.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvstrata.lab.guardfuzz.__main__ import fuzz, report
from kvstrata.lab.guardfuzz.code import kvstrata_blockcontent, kvstrata_blockdev, kvstrata_blockuse
from tests.guard.real import Bench

ROUNDS = 12


def test_no_round_ends_with_a_drive_taken_or_refused_wrongly_or_written_to(bench: Bench, tmp_path: Path) -> None:
    tally = fuzz("pytest", tmp_path, rounds=ROUNDS)
    assert tally.failures == []
    assert tally.good
    counted = json.loads(json.dumps(report(tally, "pytest", 1.0)))
    assert (counted["rounds"], counted["good"], counted["unplayed"]) == (ROUNDS, True, [])
    assert sum(counted["accepts"].values()) + counted["refusals"] == counted["drives"]
    # It is no proof unless both were there.
    assert tally.refusals > 0
    assert sum(tally.accepts.values()) > 0


def nothing(*_arguments: object, **_named: object) -> list[Any]:
    return []


@pytest.mark.parametrize(
    ("module", "name", "blind"),
    [
        (kvstrata_blockdev, "_busy", lambda *_: False),
        (kvstrata_blockdev, "mounts_of", nothing),
        (kvstrata_blockdev, "swaps_of", nothing),
        (kvstrata_blockcontent, "_sample", lambda *_: "digest"),
        (kvstrata_blockuse, "_writers", nothing),
        (kvstrata_blockuse, "_loops", nothing),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_guard_that_is_blind_on_one_eye_is_found_out(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, blind: Callable[..., Any]
) -> None:
    monkeypatch.setattr(module, name, blind)
    for number in range(200):
        tally = fuzz(f"blind-{number}", tmp_path, rounds=1)
        if not tally.good:
            return
    pytest.fail(f"200 rounds without {name}, and nothing was noticed")
