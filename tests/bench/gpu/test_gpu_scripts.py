"""The scripts for a GPU host: that they call what there is, and leave what comes back in few files with plain names."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import time
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
words=$(printf '%s\\t' "$@")
# One write: another one may run beside it.
echo "$words" >>"$KV_BASE/argv"
case $1 in */describe.py) echo '{"cores": 1}' ;; esac
while [ $# -gt 0 ]; do
    [ "$1" = --output ] && { echo "${2##*/} $(date +%s.%N)" >>"$KV_BASE/times"; sleep "${FAKE_WAIT:-0}"
        echo "${2##*/} $(date +%s.%N)" >>"$KV_BASE/times"; mkdir -p "$2-logs"
        [ -d "$2-traces" ] && { touch "$2-traces/rank0.1.pt.trace.json.gz"
            until grep -q profile_engines "$KV_BASE/argv"; do sleep 0.05; done; }
        for end in md journal.jsonl; do echo '{}' >"$2.$end"; done
        printf '{\n "complete": %s\n}\n' "${FAKE_COMPLETE:-true}" >"$2.json"
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
    return [line.split("\t")[:-1] for line in (tmp_path / "base" / "argv").read_text().splitlines()]


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
        ("8b", ["none", "dram+ssd", "dram", "native"]),
        ("8b-clients", ["none", "dram+ssd", "resp", "poc"]),
        ("32b", ["none", "dram+ssd", "dram"]),
        ("32b-fp8", ["none", "dram+ssd"]),
        ("32b-wide", ["none", "dram+ssd"]),
        ("32b-clients", ["none", "dram+ssd", "native", "resp", "poc"]),
        ("8b2", ["none", "dram+ssd"]),
        ("8b2-moved", ["none", "dram+ssd"]),
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
    gate = {"32b-fp8": 0.5, "tiny": 0.0}.get(shape, 1.0 if shape.startswith("32b") else 4.0)
    assert {one.name: one.min_load_gbps for one in found if one.min_load_gbps} == ({"dram+ssd": gate} if gate else {})
    assert given["resume"] is False
    longest = {
        "8b-long": ("cold", 6.0),
        "32b": ("cold,warm", 5.0),
        "32b-fp8": ("cold,warm", 7.0),
        "32b-wide": ("cold", 10.0),
        "32b-clients": ("cold", 5.0),
    }.get(shape, ("cold,warm", 4.0))
    assert (given["passes"], given["phase_minutes"]) == longest
    assert given["gpus"] == {"tiny": "", "8b2": "0,1", "8b2-moved": "0,1"}.get(shape, "0")
    assert given["kv_dtype"] == ("fp8" if shape == "32b-fp8" else "auto")
    assert given["router_policy"] == ("round_robin" if shape == "8b2-moved" else "cache_aware")
    assert 6 < options.minutes < 9


def test_engines_profile_themselves_where_that_is_wanted(tmp_path: Path) -> None:
    done = run(tmp_path, "serve.sh", "8b", KV_PROFILE="2", KV_AS="profile")
    assert done.returncode == 0, done.stderr
    made = calls(tmp_path)
    (words,) = [call for call in made if call[0].endswith("bench.py")]
    (first, *_) = prepare.configurations(_options(parsed("serve", words[2:])))
    told = json.loads(str(first.engine["profiler-config"]))
    assert told["profiler"] == "torch"
    assert Path(told["torch_profiler_dir"]).is_dir()
    (watching,) = [call for call in made if call[0].endswith("profile_engines.py")]
    assert watching[2:] == ["2", "5"]
    assert (tmp_path / "out" / "serve-8b-profile.engines.txt").is_file()
    assert (tmp_path / "out" / "rank0.1.pt.trace.json.gz").is_file()


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
    assert (
        "SHAPE is '70b'; allowed: 8b, 8b2, 8b2-moved, 8b-long, 8b-clients, 32b, 32b-fp8, 32b-wide, 32b-clients, tiny"
        in done.stderr
    )


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
    assert {f"serve-{shape}.json.gz" for shape in ("8b", "32b")} <= files


@pytest.mark.parametrize("complete", ["true", "false"])
def test_the_journal_of_a_run_that_can_go_on_comes_back(tmp_path: Path, complete: str) -> None:
    assert run(tmp_path, "sequence.sh", "300", "serve.sh 8b", FAKE_COMPLETE=complete).returncode == 0
    for _ in range(20):
        if run(tmp_path, "follow.sh", "5").returncode == 0:
            break
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert "serve-8b.json.gz" in files
    assert ("serve-8b.journal.jsonl.gz" in files) is (complete == "false")


def times(tmp_path: Path) -> dict[str, tuple[float, float]]:
    """Return when the fake `bench serve` of each model began and ended."""
    lines = (tmp_path / "base" / "times").read_text().split()
    found: dict[str, list[float]] = {}
    for name, moment in zip(lines[::2], lines[1::2], strict=True):
        found.setdefault(name, []).append(float(moment))
    return {name: (moments[0], moments[1]) for name, moments in found.items()}


def test_lanes_go_on_side_by_side_and_runs_on_the_same_gpu_take_turns(tmp_path: Path) -> None:
    # The one on both GPUs waits for the one on each; they last until the others have begun, or could have.
    one = run(tmp_path, "sequence.sh", "300", "serve.sh 32b", "300", "serve.sh 8b2", FAKE_WAIT="2")
    two = run(tmp_path, "sequence.sh", "300", "serve.sh 8b-long", KV_LANE="b", KV_GPUS="1", FAKE_WAIT="3")
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    followed = run(tmp_path, "follow.sh", "40")
    assert followed.returncode == 0, followed.stdout
    seen = times(tmp_path)
    (dense, long, both) = (seen[name] for name in ("serve-32b", "serve-8b-long", "serve-8b2"))
    assert max(dense[0], long[0]) < min(dense[1], long[1]), "the two lanes did not overlap"
    assert both[0] >= max(dense[1], long[1])
    assert {line for line in followed.stdout.splitlines() if line.startswith("---")} == {
        "--- sequence",
        "--- sequence-b",
    }


def test_gpus_are_shared_through_mps_where_that_is_wanted_and_it_ends_with_the_run(tmp_path: Path) -> None:
    program = tmp_path / "tools" / "nvidia-cuda-mps-control"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "${{1:-$(cat)}} $CUDA_MPS_PIPE_DIRECTORY" >>{tmp_path}/mps\n')
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    done = run(tmp_path, "serve.sh", "8b", KV_MPS="1", KV_AS="mps", PATH=path)
    assert done.returncode == 0, done.stderr
    pipe = tmp_path / "base" / "mps-serve-8b-mps"
    assert (tmp_path / "mps").read_text().splitlines() == [f"-d {pipe}", f"quit {pipe}"]
    assert (tmp_path / "out" / "serve-8b-mps.json.gz").is_file()
    program.write_text("#!/bin/sh\nexit 1\n")
    refused = run(tmp_path, "serve.sh", "8b", KV_MPS="1", PATH=path)
    assert (refused.returncode, "NO MPS" in refused.stdout) == (1, True)


def test_a_lane_runs_one_sequence_at_a_time(tmp_path: Path) -> None:
    assert run(tmp_path, "sequence.sh", "300", "serve.sh 8b", KV_LANE="b", FAKE_WAIT="5").returncode == 0
    again = run(tmp_path, "sequence.sh", "300", "serve.sh 8b", KV_LANE="b")
    assert again.returncode == 2
    assert "allowed: one sequence at a time, or another KV_LANE" in again.stderr
    assert run(tmp_path, "follow.sh", "40").returncode == 0


def test_the_hosts_packages_are_read_while_others_arrive(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    (site / "vllm_needs").mkdir(parents=True)
    (site / "vllm_needs" / "one.so").write_text("x")
    done = run(tmp_path, "warm.sh", "20", KV_ENGINE_PYTHON=str(printing(tmp_path, site)))
    assert done.returncode == 0, done.stderr
    log = tmp_path / "base" / "warm.log"
    until = time.monotonic() + 20
    while "read: " not in log.read_text() and time.monotonic() < until:
        time.sleep(0.05)
    assert log.read_text().endswith(f"read: {site}\n")


def printing(tmp_path: Path, text: Path) -> Path:
    """Return a program that prints a path, whatever it is asked."""
    program = tmp_path / "printing"
    program.write_text(f"#!/bin/sh\necho {text}\n")
    program.chmod(0o755)
    return program


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


FAKE_UV = """#!/bin/bash
while [ $# -gt 0 ]; do
    case $1 in --target) target=$2 ;; -r) cp "$2" "$(dirname "$0")/wanted" ;; esac
    shift
done
mkdir -p "$target/bin" "$target/pkg/__pycache__" && touch "$target/pkg/a.py" "$target/pkg/a.pyi" "$target/bin/tool"
"""


def tree(tmp_path: Path, *, keep: str = "") -> subprocess.CompletedProcess[str]:
    """Run tree.sh with a folder that is named from where it runs, and a uv that notes what it was to install."""
    (tmp_path / "fakes").mkdir(exist_ok=True)
    (tmp_path / "fakes" / "uv").write_text(FAKE_UV)
    (tmp_path / "fakes" / "uv").chmod(0o755)
    return subprocess.run(
        ["bash", str(SCRIPTS / "tree.sh"), "trees"],
        env={"PATH": f"{tmp_path / 'fakes'}:/usr/sbin:/usr/bin:/sbin:/bin", "KV_KEEP": keep},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


def wanted(tmp_path: Path) -> set[str]:
    return {line.split("==")[0] for line in (tmp_path / "fakes" / "wanted").read_text().splitlines()}


LOCK = PROJECT / "locks" / "node-cuda-cp312.txt"
LOCKED = {line.split("==")[0] for line in LOCK.read_text().splitlines() if "==" in line and not line.startswith("#")}


def test_a_tree_is_of_what_the_lock_has_and_the_host_lacks(tmp_path: Path) -> None:
    done = tree(tmp_path)
    assert done.returncode == 0, done.stderr
    found = wanted(tmp_path)
    assert {"torch", "torchvision", "triton", "vllm", "lmcache", "numpy", "nvidia-nccl-cu13"} <= found <= LOCKED
    assert not found & {"ai-dynamo", "numba", "nvidia-cublas", "transformers"}
    made = sorted(str(path.relative_to(tmp_path / "trees")) for path in (tmp_path / "trees").rglob("*.*"))
    assert made == [
        "lib/libcrypto.so.3",
        "lib/libssl.so.3",
        "site/ansible/__init__.py",
        "site/ansible/module_utils/__init__.py",
        "site/pkg/a.py",
    ]


def test_what_a_tree_leaves_out_is_in_the_lock(tmp_path: Path) -> None:
    text = (SCRIPTS / "tree.sh").read_text()
    named = {name for found in re.findall(r'^(?:left_out|kept_nvidia)="([^"]*)"', text, re.M) for name in found.split()}
    assert len(named) > 40
    assert named <= LOCKED


def test_a_tree_keeps_what_a_run_wants_besides(tmp_path: Path) -> None:
    assert tree(tmp_path, keep="ai-dynamo nvidia-cublas").returncode == 0
    assert {"ai-dynamo", "nvidia-cublas"} <= wanted(tmp_path)


def test_a_tree_is_not_made_over_another(tmp_path: Path) -> None:
    assert tree(tmp_path).returncode == 0
    again = tree(tmp_path)
    assert again.returncode == 2
    assert "trees, which is not empty; allowed: a new folder" in again.stderr
