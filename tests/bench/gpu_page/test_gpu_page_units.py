"""What comes back of benchmarks/gpu/units.sh: what is kept of it, and what the page says."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from kvstrata.bench.errors import BenchError
from kvstrata.bench.gpu_page import committed, units
from kvstrata.bench.gpu_page.files import read_sources
from kvstrata.bench.gpu_page.page import make

ENGINE, STORE = "vllm@0.service", "kvrocks@d0.service"


def answer(seconds: float, cached: int) -> dict[str, Any]:
    return {"s": seconds, "cached": cached, "text": "secret"}


def check(id_: str, status: str, seen: str = "well") -> dict[str, Any]:
    return {"id": id_, "layer": id_.partition(".")[0], "status": status, "seen": seen}


@pytest.fixture
def came_back(tmp_path: Path) -> Path:
    seen = {
        "ok": True,
        "engine_healthy_s": 142.2,
        "router_healthy_s": 1.5,
        "processes": {ENGINE: {"argv": ["vllm"]}},
        "first": [answer(0.227, 0), answer(0.216, 0)],
        "again": answer(0.103, 4992),
        "back_s": 2.5,
        "gpu_mib": {"before_the_kill": [31497, 527], "after_it": [13067, 573]},
        "healthy_again_s": 103.2,
        "after_restart": answer(0.151, 4864),
        "router_back_s": 1.9,
        "same_text": True,
    }
    verified = {
        "ok": True,
        "started_at": "2026-11-28T07:56:04+00:00",
        "checks": [
            check("host.ssh", "pass"),
            check("host.all", "skip", "NOT CHECKED: --only store,cache"),
            check("store.auth", "pass"),
            check("store.engine", "pass"),
            check("cache.health", "pass"),
            check("cache.closed", "skip", "NOT CHECKED: none knows it"),
        ],
    }
    status = [
        {"unit": STORE, "restarts": 0, "not_applied": ["PrivateDevices=yes", "LockPersonality=yes"]},
        {"unit": ENGINE, "restarts": 1, "not_applied": ["LockPersonality=yes"]},
    ]
    host = {"cpu": "A CPU", "cores": 32, "kernel": "6.8", "gpus": "NVIDIA H200\nNVIDIA H200", "packages": {"vllm": "9"}}
    for name, form in (("units-status", status), ("verify", verified)):
        (tmp_path / f"{name}.json").write_text(json.dumps(form))
    for name, form in (("units", seen), ("host", host)):
        (tmp_path / f"{name}.json.gz").write_bytes(gzip.compress(json.dumps(form).encode()))
    return tmp_path


def change(folder: Path, name: str, **values: Any) -> None:
    path = folder / f"{name}.json.gz"
    path.write_bytes(gzip.compress(json.dumps(json.loads(gzip.decompress(path.read_bytes())) | values).encode()))


def test_the_page_tells_what_ran_and_how_the_killed_engine_came_back(came_back: Path, tmp_path: Path) -> None:
    file = tmp_path / "gpu-units.json"
    assert units.main([str(came_back), str(file)]) == 0
    text = make([file], "x").text
    for line in (
        "## gpu-units: the roles' units, started on this host",
        "| run | 2026-11-28T07:56:04+00:00, all of it went well |",
        "| GPUs | NVIDIA H200; NVIDIA H200 |",
        f"| units, restarts | {STORE} 0, {ENGINE} 1 |",
        "| engine healthy | 142.2 s |",
        "| prompts | 0.227 s, 0 cached; 0.216 s, 0 cached |",
        "| the first again | 0.103 s, 4,992 cached |",
        "| and after the kill | 0.151 s, 4,864 cached |",
        "| engine killed: its process back | 2.5 s |",
        "| healthy after that | 103.2 s |",
        "| texts of the first prompt | all the same |",
        "| MiB in use of each GPU | before the kill 31,497, 527; after it 13,067, 573 |",
        "| store | 2 | 0 | 0 | 0 |",
        "| cache | 1 | 0 | 0 | 1 |",
        "- cache.closed: NOT CHECKED: none knows it",
        f"`PrivateDevices=yes` ({STORE}), `LockPersonality=yes`.",
    ):
        assert line in text, line
    # What the verifier was not asked for is no check that was left out.
    assert "host.all" not in text
    assert "| host | 1 |" not in text
    assert "What else was kept" not in text


def test_nothing_of_prompts_or_command_lines_is_kept(came_back: Path) -> None:
    text = json.dumps(units.kept(came_back))
    assert "secret" not in text
    assert "argv" not in text


@pytest.mark.parametrize(("name", "wrong"), [("units", True), ("verify", True), ("units", False)])
def test_a_run_is_well_only_where_both_are(came_back: Path, name: str, *, wrong: bool) -> None:
    if name == "verify":
        plain = came_back / "verify.json"
        plain.write_text(json.dumps(json.loads(plain.read_text()) | {"ok": not wrong}))
    else:
        change(came_back, name, ok=not wrong)
    run = units.from_json(units.kept(came_back))
    assert run.ok is not wrong
    assert ("NOT ALL OF IT WENT WELL" in "".join(units.section(run))) is wrong


def test_what_was_not_come_to_is_told_by_a_dash(came_back: Path) -> None:
    path = came_back / "units.json.gz"
    seen = json.loads(gzip.decompress(path.read_bytes()))
    for name in ("back_s", "healthy_again_s", "after_restart", "router_back_s", "same_text", "gpu_mib"):
        del seen[name]
    path.write_bytes(gzip.compress(json.dumps(seen | {"ok": False}).encode()))
    lines = list(units.section(units.from_json(units.kept(came_back))))
    for what in ("healthy after that", "and after the kill", "texts of the first prompt", "MiB in use of each GPU"):
        assert f"| {what} | - |" in lines


def test_texts_that_differ_are_told(came_back: Path) -> None:
    change(came_back, "units", same_text=False)
    lines = list(units.section(units.from_json(units.kept(came_back))))
    assert "| texts of the first prompt | THEY DIFFER |" in lines


def test_a_file_of_this_kind_without_its_fields_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gpu-units.json"
    path.write_text(json.dumps({"schema": units.SCHEMA, "created": "now"}))
    with pytest.raises(BenchError, match=r"gpu-units.json: kvstrata.gpu.units/1: TypeError"):
        read_sources([path])


def test_the_run_that_is_kept_went_well_with_all_that_could_be_checked() -> None:
    (source,) = read_sources([path for path in committed.sources() if path.name == "gpu-units.json"])
    run = source.content
    assert run.ok
    assert sum(found.get("pass", 0) for found in run.checks.values()) == 28
    assert sorted(run.left_out) == ["cache.closed", "router.locality"]
    assert run.answers["after_restart"][0]["cached"] > 4000
