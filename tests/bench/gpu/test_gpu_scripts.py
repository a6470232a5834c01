"""The scripts for a GPU host: that they call what there is, and leave what comes back in few files with plain names."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from kvstrata.bench.cli import app
from kvstrata.bench.serving import prepare
from kvstrata.bench.serving.cli import _options
from kvstrata.bench.serving.served import SHAPES
from kvstrata.paths import PROJECT

SCRIPTS = PROJECT / "benchmarks" / "gpu"
# Stands for the host's Python: keeps its arguments, and writes what `bench serve` would.
FAKE = """#!/bin/bash
printf '%s\\0' "$@" >>"$KV_BASE/argv"; printf '\\n' >>"$KV_BASE/argv"
case $1 in */describe.py) echo '{"cores": 1}' ;; esac
while [ $# -gt 0 ]; do
    [ "$1" = --output ] && { mkdir -p "$2-logs"; for end in json md journal.jsonl; do echo '{}' >"$2.$end"; done
        for n in 1 2 3; do echo "log $n" >"$2-logs/$n.log"; done; }
    shift
done
exit ${FAKE_EXIT:-0}
"""


def run(tmp_path: Path, script: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    fake = tmp_path / "python"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"],
        "KV_BASE": str(tmp_path / "base"),
        "OUT": str(tmp_path / "out"),
        "KV_PYTHON": str(fake),
        **more,
    }
    return subprocess.run(
        ["bash", str(SCRIPTS / script), *words], capture_output=True, text=True, env=environment, timeout=60, cwd="/"
    )


def calls(tmp_path: Path) -> list[list[str]]:
    return [line.split("\0")[:-1] for line in (tmp_path / "base" / "argv").read_text().splitlines()]


def parsed(command: str, words: list[str]) -> dict[str, Any]:
    """Return the parameters as the real command line takes them; it ends the test where it takes them not."""
    group: Any = typer.main.get_command(app)
    return dict(group.commands[command].make_context(command, words).params)


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.sh")))
def test_each_script_parses(script: str) -> None:
    subprocess.run(["bash", "-n", str(SCRIPTS / script)], check=True)


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ("8b", ["none", "dram+ssd", "dram", "native", "resp", "poc"]),
        ("32b", ["none", "dram+ssd", "dram"]),
        ("8b2", ["none", "dram+ssd"]),
        ("8b-long", ["none", "dram+ssd", "dram"]),
        ("tiny", ["none", "dram+ssd", "dram", "resp"]),
    ],
)
def test_a_shape_is_asked_for_in_words_that_bench_serve_takes(tmp_path: Path, shape: str, names: list[str]) -> None:
    done = run(tmp_path, "serve.sh", shape)
    assert done.returncode == 0, done.stderr
    (words,) = [call for call in calls(tmp_path) if call[0].endswith("bench.py")]
    given = parsed("serve", words[2:])
    options = _options(given)
    found = prepare.configurations(options)
    assert [one.name for one in found] == names
    gate = {"32b": 2.0, "tiny": 0.0}.get(shape, 4.0)
    assert {one.name: one.min_load_gbps for one in found if one.min_load_gbps} == ({"dram+ssd": gate} if gate else {})
    assert given["resume"] is False
    assert (given["passes"], given["phase_minutes"]) == (("cold", 6.0) if shape == "8b-long" else ("cold,warm", 4.0))
    assert 6 < options.minutes < 9


def test_a_second_call_goes_on_and_the_time_of_a_call_is_its_own(tmp_path: Path) -> None:
    run(tmp_path, "serve.sh", "8b", KV_SECONDS="300")
    run(tmp_path, "serve.sh", "8b", KV_SECONDS="300", KV_ARGS="--rounds 2")
    first, second = (parsed("serve", call[2:]) for call in calls(tmp_path) if call[0].endswith("bench.py"))
    assert (first["resume"], second["resume"]) == (False, True)
    assert second["rounds"] == 2
    assert 3 < first["minutes"] < 4.5


def test_what_comes_back_is_little_and_plain(tmp_path: Path) -> None:
    done = run(tmp_path, "serve.sh", "32b", FAKE_EXIT="1")
    assert done.returncode == 1
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == [
        "host.json.gz",
        "serve-32b.journal.jsonl.gz",
        "serve-32b.json.gz",
        "serve-32b.logs.gz",
        "serve-32b.md",
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in files)
    assert len(files) <= 8
    logs = gzip.decompress((tmp_path / "out" / "serve-32b.logs.gz").read_bytes()).decode()
    assert [f"log {n}" in logs for n in (1, 2, 3)] == [True] * 3
    assert json.loads(gzip.decompress((tmp_path / "out" / "host.json.gz").read_bytes())) == {"cores": 1}


def test_an_unknown_shape_is_refused_with_what_is_allowed(tmp_path: Path) -> None:
    done = run(tmp_path, "serve.sh", "70b")
    assert done.returncode == 2
    assert "SHAPE is '70b'; allowed: 8b, 8b2, 8b-long, 32b, tiny" in done.stderr


def test_the_raw_tier_is_asked_for_in_words_that_bench_takes(tmp_path: Path) -> None:
    done = run(tmp_path, "raw.sh")
    assert done.returncode == 0, done.stderr
    found = {call[1]: parsed(call[1], call[2:]) for call in calls(tmp_path) if call[0].endswith("bench.py")}
    assert set(found) == {"l2", "store"}
    assert found["l2"]["clients"] == "tier"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "host.json",
        "raw-l2.json",
        "raw-l2.md",
        "raw-store.json",
        "raw-store.md",
    ]


def test_routing_is_asked_for_in_words_that_bench_takes(tmp_path: Path) -> None:
    done = run(tmp_path, "routing.sh", KV_ROUTING_ARGS="--seconds 2")
    assert done.returncode == 0, done.stderr
    overhead, loads = (
        parsed(call[1], call[2:]) for call in calls(tmp_path) if call[0].endswith("bench.py") and call[1] == "routing"
    )
    assert (overhead["points"], overhead["router_cores"], overhead["rounds"]) == ("overhead", "0,1", 3)
    assert (loads["points"], loads["workers"], loads["seconds"]) == ("loads", 32, 2.0)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "host.json",
        "routing-32.json",
        "routing-32.md",
        "routing-overhead.json",
        "routing-overhead.md",
    ]


def test_the_shapes_models_have_the_figures_that_are_said_of_them() -> None:
    shape = SHAPES["32b-shape"]
    assert (shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.intermediate) == (64, 5120, 64, 8, 25600)


def test_a_sequence_goes_on_without_its_call_and_is_followed(tmp_path: Path) -> None:
    began = run(tmp_path, "sequence.sh", "300", "serve.sh 8b", "300", "serve.sh 32b")
    assert began.returncode == 0, began.stderr
    for _ in range(20):
        followed = run(tmp_path, "follow.sh", "5")
        if followed.returncode == 0:
            break
        assert followed.returncode == 3, followed.stderr
    assert followed.returncode == 0
    log = (tmp_path / "base" / "sequence.log").read_text()
    assert [line.partition(" ")[2] for line in log.splitlines() if " ended" in line] == [
        "ended with 0: serve.sh 8b",
        "ended with 0: serve.sh 32b",
        "all ended",
    ]
    assert [call[3] for call in calls(tmp_path) if call[0].endswith("bench.py")] == ["llama-8b-shape", "32b-shape"]
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert len(files) <= 8
    assert {f"serve-{shape}.{end}.gz" for shape in ("8b", "32b") for end in ("json", "journal.jsonl")} <= files


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["10"], "1 arguments"),
        (["soon", "serve.sh 8b"], "SECONDS is 'soon'"),
        (["10", "none.sh"], "RUN is 'none.sh'"),
    ],
)
def test_a_sequence_that_cannot_run_is_refused_before_anything_begins(
    tmp_path: Path, words: list[str], said: str
) -> None:
    done = run(tmp_path, "sequence.sh", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "base" / "sequence.log").exists()
