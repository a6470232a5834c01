"""What `kvstrata bench l2` makes of its samples, and one small run from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kvstrata.bench import l2_cases, l2_text
from kvstrata.bench.cli import app
from kvstrata.bench.errors import BenchError
from kvstrata.bench.l2_results import (
    COLD,
    LOOKUP,
    STORE,
    WARM,
    Case,
    Failure,
    Journey,
    Run,
    Sample,
    journey_stages,
    rows,
    targets,
    to_json,
)

CHUNK = 32 << 20
GIB = 1 << 30


def sample(case: str, turn: int, workload: str, mb_s: float | None, cpu: tuple[float, float], **rest: Any) -> Sample:
    fields: dict[str, Any] = {"raw_mb_s": 1000.0, "drive_read_bytes": GIB} | rest
    return Sample(case, turn, workload, 32, GIB, 1.0, mb_s, *cpu, **fields)


def a_run(samples: list[Sample], **rest: Any) -> Run:
    cases = [Case("kvstrata tcp", "kvstrata"), Case("resp", "resp")]
    return Run(
        created="now",
        seed=1,
        rounds=3,
        chunks=32,
        chunk_bytes=CHUNK,
        batch=16,
        passes=3,
        host={"cores": 2},
        versions={"kvrocks": "2.10.1"},
        store="kvrocks",
        cases=cases,
        samples=samples,
        **rest,
    )


def verdicts(run: Run) -> dict[str, bool | None]:
    return {target.what: target.reached for target in targets(run, rows(run))}


def test_medians_are_of_the_rounds_and_ratios_of_each_round() -> None:
    run = a_run(
        [
            sample("kvstrata tcp", 1, COLD, 900, (0.2, 0.6), raw_mb_s=1000),
            sample("kvstrata tcp", 2, COLD, 500, (0.4, 0.6), raw_mb_s=500),
            sample("kvstrata tcp", 3, COLD, 800, (0.3, 0.6), raw_mb_s=1000),
        ]
    )
    (row,) = rows(run)
    assert (row.mb_s, row.mb_s_low, row.mb_s_high) == (800, 500, 900)
    assert row.to_raw == 0.9
    assert row.cpu_s_per_gib == pytest.approx(0.9)
    assert row.rounds == 3


def test_a_target_is_reached_at_its_value_and_not_below() -> None:
    reached = a_run(
        [
            sample("kvstrata tcp", 1, COLD, 900, (0.2, 0.6)),
            sample("kvstrata tcp", 1, WARM, 4000, (0.2, 0.6)),
            sample("resp", 1, WARM, 1000, (0.2, 0.7)),
            sample("kvstrata tcp", 1, STORE, 1500, (0.2, 0.6), rest_mb_s=900, write_amplification=1.3),
            sample("kvstrata tcp", 1, LOOKUP, None, (0.0, 0.0), one_lookup_drive_bytes=65535),
        ]
    )
    assert all(verdicts(reached).values())
    missed = a_run(
        [
            sample("kvstrata tcp", 1, COLD, 899, (0.2, 0.6)),
            sample("kvstrata tcp", 1, WARM, 3999, (0.2, 0.6)),
            sample("resp", 1, WARM, 1000, (0.2, 0.6)),
            sample("kvstrata tcp", 1, STORE, 1500, (0.2, 0.6), rest_mb_s=899, write_amplification=1.31),
            sample("kvstrata tcp", 1, LOOKUP, None, (0.0, 0.0), one_lookup_drive_bytes=65536),
        ]
    )
    assert set(verdicts(missed).values()) == {False}


def test_what_was_only_acknowledged_does_not_count_as_written() -> None:
    run = a_run([sample("kvstrata tcp", 1, STORE, 2000, (0.2, 0.6), rest_mb_s=500, write_amplification=1.0)])
    (row,) = rows(run)
    assert (row.to_raw, row.acknowledged_to_raw) == (0.5, 2.0)


def test_a_cold_read_that_came_from_memory_is_no_result() -> None:
    run = a_run([sample("kvstrata tcp", 1, COLD, 5000, (0.2, 0.6), drive_read_bytes=GIB // 2)])
    (row,) = rows(run)
    assert not row.as_named
    assert verdicts(run)["cold load / raw read of the drive"] is None
    assert "NOT COLD" in l2_text.render(run)


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    run = a_run([sample("kvstrata tcp", 1, WARM, 2000, (0.2, 0.6))])
    assert verdicts(run)["warm load / resp's"] is None
    assert verdicts(run)["write amplification"] is None
    assert "not measured" in l2_text.render(run)


def test_the_stages_of_a_load_add_up_to_it() -> None:
    stages = journey_stages(30.0, {"server": 0.08, "copy": 0.12, "checksum": 0.008, "connect": 9.0}, 2, 4)
    assert sum(stages.values()) == pytest.approx(30.0)
    assert stages == pytest.approx({"wait": 4.0, "server": 10.0, "copy": 15.0, "checksum": 1.0})
    assert journey_stages(30.0, {}, 2, 4) == {}


def test_the_file_holds_samples_medians_targets_and_failures() -> None:
    run = a_run(
        [sample("kvstrata tcp", 1, WARM, 2000, (0.2, 0.6))],
        journeys=[Journey("kvstrata tcp", 1, 8, 0.5, 20.0, {"wait": 1.0, "server": 9.0, "copy": 9.0, "checksum": 1.0})],
        failures=[Failure("resp", 1, "it hung")],
    )
    written = json.loads(json.dumps(to_json(run)))
    assert written["schema"] == "kvstrata.bench.l2/1"
    assert written["samples"][0]["case"] == "kvstrata tcp"
    assert written["summary"][0]["cpu_s_per_gib"] == pytest.approx(0.8)
    assert {target["reached"] for target in written["targets"]} == {None}
    assert written["failures"] == [{"case": "resp", "round": 1, "error": "it hung"}]
    assert "FAILED resp, round 1: it hung" in l2_text.render(run)


def test_each_transport_of_ours_is_a_case_and_others_have_one() -> None:
    names = [case.name for case in l2_cases.cases(["kvstrata", "resp"], ["tcp", "unix"])]
    assert names == ["kvstrata tcp", "kvstrata unix", "resp"]


@pytest.mark.parametrize(("clients", "transports"), [(["redis"], ["tcp"]), (["kvstrata"], ["udp"])])
def test_an_unknown_client_or_transport_is_refused(clients: list[str], transports: list[str]) -> None:
    with pytest.raises(BenchError, match="allowed"):
        l2_cases.cases(clients, transports)


def test_a_sweep_varies_one_thing_at_a_time() -> None:
    swept = l2_cases.sweep(["piece", "instances"])
    assert swept[0].fields == {}
    assert all(len(case.fields) == 1 for case in swept[1:])
    assert {case.instances for case in swept} == {1, 2, 4}
    with pytest.raises(BenchError, match="axis 'colour' is unknown"):
        l2_cases.sweep(["colour"])


@pytest.fixture
def quick(tmp_path: Path) -> Any:
    def run(*options: str) -> dict[str, Any]:
        output = tmp_path / "out"
        result = CliRunner().invoke(app, ["l2", "--quick", "--output", str(output), *options])
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
        assert (tmp_path / "out.md").read_text().startswith("raw O_DIRECT")
        for note in found["notes"]:
            print(note)
        return found

    return run


def test_a_quick_run_over_redis_measures_our_client(redis: Path, drive: Path, quick: Any) -> None:
    found = quick("--dir", str(drive), "--server", "redis", "--chunk-bytes", "8MiB")
    assert found["complete"]
    assert {s["workload"] for s in found["samples"]} == {"store", "warm"}
    assert all(s["mb_s"] > 0 and s["client_cpu_s"] > 0 for s in found["samples"])


def test_a_quick_run_over_kvrocks_is_cold_where_it_says_so(kvrocks: Path, drive: Path, quick: Any) -> None:
    found = quick("--dir", str(drive), "--chunk-bytes", "32MiB", "--transports", "tcp")
    by = {s["workload"]: s for s in found["samples"]}
    assert by["cold"]["drive_read_bytes"] >= 0.9 * by["cold"]["bytes"]
    assert by["warm"]["drive_read_bytes"] < 0.1 * by["warm"]["bytes"]
    assert by["lookup"]["one_lookup_drive_bytes"] < 64 << 10
    assert by["store"]["write_amplification"] <= 1.3
    assert not list(drive.glob("kvstrata-bench-l2-*"))
