"""What kvstrata.l2 does when its store, its network or LMCache itself breaks, on real servers.

The matrix runs once for each engine, in the nodes' environment (src/kvstrata/bench/faults); each fault is one test.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from kvstrata.bench.faults.rows import BACK_WITHIN_S, NOT_CHECKED, OK, SLACK_S, Row
from kvstrata.paths import PROJECT
from tests.faults.conftest import KVROCKS

# The first test of an engine waits for the whole matrix.
pytestmark = pytest.mark.timeout(400)

FAULTS = (
    "restarted",
    "restarted_default",
    "started_late",
    "hung",
    "hung_default",
    "full",
    "full_filesystem",
    "other_size",
    "vanished",
    "cut_loading",
    "cut_storing",
    "cut_answer",
    "held_loading",
    "delayed",
    "netem",
    "narrow_network",
    "wrong_password",
    "one_of_four_gone",
    "one_of_four_hung",
    "corrupted",
    "client_killed",
    "store_killed",
)


def run(python: Path, environ: dict[str, str], folder: Path, *words: str) -> dict[str, Row]:
    """Run faults; return the rows by fault."""
    file = folder / "rows.json"
    done = subprocess.run(
        [python, "-m", "kvstrata.bench.faults", "--kvrocks", KVROCKS, "--json", file, *words],
        env=environ,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert file.exists(), f"{done.stdout}\n{done.stderr}"
    print(done.stdout)
    return {row.fault: row for row in map(Row.from_json, json.loads(file.read_text()))}


@pytest.fixture(scope="session")
def matrix(
    node_python: Path, node_environ: dict[str, str], engine: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Row]:
    """All rows of kvstrata on one engine."""
    folder = tmp_path_factory.mktemp(f"faults-{engine}")
    return run(node_python, node_environ, folder, "--adapter", "kvstrata", "--engine", engine)


@pytest.mark.parametrize("fault", FAULTS)
def test_kvstrata_survives(matrix: dict[str, Row], fault: str) -> None:
    row = matrix[fault]
    if row.verdict == NOT_CHECKED:
        pytest.skip(f"NOT CHECKED: {fault} on {row.engine}: {'; '.join(row.notes)}")
    assert not row.hung, f"an operation never ended: {row.broken}"
    assert not row.crashed, row.broken
    assert row.wrong_chunks == 0, "a chunk was loaded with bytes that are not its own"
    assert row.deadline_s is None or row.worst_s <= row.deadline_s + SLACK_S, "an operation outlived its deadline"
    assert row.others_hit == row.others_asked, "endpoints without a fault lost hits"
    if row.watched_s is not None:
        assert row.back_s is not None, f"not back within {row.watched_s} s of the store's return"
        assert row.back_s <= BACK_WITHIN_S
    assert row.verdict == OK, row.broken


def test_every_fault_of_the_matrix_has_its_test(matrix: dict[str, Row]) -> None:
    assert set(matrix) == set(FAULTS)


def test_a_chunk_survives_the_kill_of_a_store_that_was_flushed(matrix: dict[str, Row]) -> None:
    assert matrix["store_killed"].figures["survived the kill, of 24 before the checkpoint"] == 24


def test_a_connection_that_is_cut_in_a_load_costs_no_more_than_a_miss(matrix: dict[str, Row]) -> None:
    assert matrix["cut_loading"].figures["old chunks served again"] == 6


def test_the_rig_sees_the_wrong_bytes_that_an_adapter_without_checksums_loads(
    node_python: Path, node_environ: dict[str, str], tmp_path: Path
) -> None:
    words = ("--adapter", "resp", "--engine", "redis", "--fault", "corrupted")
    row = run(node_python, node_environ, tmp_path, *words)["corrupted"]
    assert row.wrong_chunks == 1
    assert row.verdict != OK
