"""A stack on this machine with real stores, and a stub in place of vLLM and LMCache; and the command over it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kvstrata.bench.cli import app
from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving import local_host, prepare, served
from kvstrata.bench.serving.configurations import Sizes, preset
from kvstrata.bench.serving.engine_options import ServedModel
from kvstrata.bench.serving.local_stack import LocalSettings, LocalStack
from kvstrata.bench.serving.prepare import Options
from kvstrata.paths import PROJECT, cache_dir

STUB = Path(__file__).with_name("stub_python.py")
REDIS = shutil.which("redis-server")
KVROCKS = cache_dir() / "bin" / "kvrocks"


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An executable that stands for a Python with vLLM and LMCache."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {STUB} "$@"\n')
    script.chmod(0o755)
    return script


def settings(python: Path, folder: Path, **changes: Any) -> LocalSettings:
    (folder / "run").mkdir()
    wanted: dict[str, Any] = {
        "store_binary": None if REDIS is None else Path(REDIS),
        "store_is_redis": True,
        "store_gib": 0.125,
        **changes,
    }
    return LocalSettings(
        environment=local_host.environment(python, folder / "alias"),
        accelerator="cpu",
        model=ServedModel("m", str(folder)),
        folder=folder / "run",
        logs=folder / "logs",
        start_timeout_s=60,
        **wanted,
    )


@pytest.fixture
def stack(python: Path, tmp_path: Path) -> Iterator[LocalStack]:
    with LocalStack(settings(python, tmp_path)) as running:
        yield running


NVIDIA_SMI = """#!/bin/sh
echo "$@" >>{asked}
case "$*" in *driver_version*)
    for n in 0 1 2 3; do echo "NVIDIA H100 number $n, 81559 MiB, 580.1"; done ;;
esac
"""


@pytest.fixture
def four_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose nvidia-smi names four GPUs; the file of what it was asked."""
    asked = tmp_path / "asked"
    program = tmp_path / "tools" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(NVIDIA_SMI.format(asked=asked))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return asked


def test_an_engine_has_the_gpus_that_were_named(python: Path, tmp_path: Path, four_gpus: Path) -> None:
    options = Options(model="tiny-llama", models=tmp_path / "models", python=python, tensor_parallel=2, gpus="3,1")
    (tmp_path / "run").mkdir()
    wanted = [preset("dram", Sizes(dram_gib=0.1))]
    found = prepare.local(options, wanted, tmp_path / "run", tmp_path / "logs")
    assert (found.gpus, [name[:20] for name in found.gpu_names]) == (
        (3, 1),
        ["NVIDIA H100 number 3", "NVIDIA H100 number 1"],
    )
    with LocalStack(found) as stack:
        running = stack.start(wanted[0])
        given: dict[str, Any] = dict(running.options)
        assert given["vllm:0"]["environment"]["CUDA_VISIBLE_DEVICES"] == "3,1"
        stack.begin()
        until = time.monotonic() + 20
        while "--id=3,1" not in four_gpus.read_text() and time.monotonic() < until:
            time.sleep(0.05)
        stack.end()
    assert "--id=3,1" in four_gpus.read_text()


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        ("4", "--gpus is '4'; allowed: each once, of 0, 1, 2, 3"),
        ("1,1", "--gpus is '1,1'; allowed: each once"),
        ("first", "--gpus is 'first'; allowed: each once"),
        ("2", "--replicas 2 of --tensor-parallel 1 need 2 GPUs; allowed: no more than there are in --gpus, 1"),
    ],
)
def test_gpus_that_cannot_be_used_are_refused(
    python: Path, tmp_path: Path, four_gpus: Path, gpus: str, said: str
) -> None:
    options = Options(model="tiny-llama", models=tmp_path / "models", python=python, replicas=2, gpus=gpus)
    with pytest.raises(BenchError, match=re.escape(said)):
        prepare.local(options, [preset("none", Sizes())], tmp_path, tmp_path / "logs")


def servers() -> set[int]:
    """Processes of this machine that run the stub or a store below a temporary folder."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if entry.name.isdigit() and (str(STUB).encode() in words or b"stores/" in words):
            found.add(int(entry.name))
    return found


def test_an_engine_alone_is_started_counted_and_ended(stack: LocalStack) -> None:
    before = servers()
    running = stack.start(preset("none", Sizes(hbm_gib=0.5)))
    assert running.direct == (running.endpoint.url,)
    given: Any = running.options["vllm:0"]
    assert given["options"]["kv-cache-memory-bytes"] == 1 << 29
    counted = stack.begin()
    assert counted["vllm:0"]["kv_capacity_tokens"] == 16
    assert counted["process:vllm:0"]["cpu_s"] > 0
    assert "lmcache" not in counted
    stack.end()
    assert stack.alive() is None
    stack.stop()
    assert servers() == before


@pytest.mark.parametrize("policy", ["cache_aware", "round_robin"])
def test_replicas_are_behind_a_router_of_the_policy_that_was_named(python: Path, tmp_path: Path, policy: str) -> None:
    with LocalStack(settings(python, tmp_path, replicas=2, router_policy=policy)) as stack:
        assert stack.describe()["router_policy"] == policy
        running = stack.start(preset("none", Sizes()))
        stack.begin()
        stack.end()
    given: dict[str, Any] = dict(running.options)
    assert given["router"]["--policy"] == policy
    words = (tmp_path / "logs" / "router.log").read_text()
    assert f"'--policy', '{policy}'" in words
    assert words.count("http://127.0.0.1:") == 2


@pytest.mark.skipif(REDIS is None, reason="NOT PROVEN that stores are started: no redis-server (apt-get install it)")
def test_all_tiers_are_started_and_the_stores_are_emptied_and_removed(stack: LocalStack, tmp_path: Path) -> None:
    running = stack.start(preset("dram+ssd", Sizes(dram_gib=0.25)))
    assert any(note.startswith("NOT AN SSD TIER") for note in running.notes)
    server: Any = running.options["lmcache"]
    (endpoint,) = server["l2"]["endpoints"]
    assert server["flags"]["--l1-size-gb"] == 0.25
    source = f"kvrocks:127.0.0.1:{endpoint['port']}"
    assert stack.begin()[source]["connected_clients"] >= 1
    _set(endpoint["port"], "key", "value")
    assert _keys(endpoint["port"]) == 1
    stack.clear()
    assert _keys(endpoint["port"]) == 0
    stack.end()
    stack.stop()
    assert not (tmp_path / "run" / "stores").exists()


@pytest.mark.skipif(not KVROCKS.is_file(), reason=f"NOT PROVEN that Kvrocks takes its directives: none at {KVROCKS}")
@pytest.mark.parametrize("profile", ["dram+ssd", "poc"])
def test_kvrocks_takes_the_directives_of_its_profile(python: Path, tmp_path: Path, profile: str) -> None:
    with LocalStack(settings(python, tmp_path, store_binary=KVROCKS, store_is_redis=False)) as stack:
        running = stack.start(preset(profile, Sizes()))
        stores = [given for name, given in running.options.items() if name.startswith("store:")]
        assert len(stores) == 1
        # Started again on fresh folders.
        stack.start(preset(profile, Sizes()))
        assert stack.forget_memory() is None


def test_a_namespace_is_used_once(stack: LocalStack) -> None:
    if REDIS is None:
        pytest.skip("NOT PROVEN that a restarted cache starts empty: no redis-server")
    names = set()
    for _ in range(2):
        given: Any = stack.start(preset("ssd", Sizes())).options["lmcache"]
        names.add(given["l2"]["namespace"])
    assert len(names) == 2


def test_an_engine_that_does_not_start_is_told_with_its_log(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_FAILS", "vllm")
    with (
        LocalStack(settings(python, tmp_path)) as stack,
        pytest.raises(BenchError, match=r"(?s)vllm:0 ended with 1 at its start.*ValueError: no such option"),
    ):
        stack.start(preset("none", Sizes()))


def test_an_engine_that_is_killed_is_noticed(stack: LocalStack) -> None:
    stack.start(preset("none", Sizes()))
    pid = stack._processes.running["vllm:0"].pid
    os.kill(pid, 9)
    over = time.monotonic() + 20
    while stack.alive() is None and time.monotonic() < over:
        time.sleep(0.01)
    assert "vllm:0 ended with -9" in str(stack.alive())


def test_without_kvrocks_what_needs_it_is_not_run(python: Path, tmp_path: Path) -> None:
    stack = LocalStack(settings(python, tmp_path, store_binary=None))
    assert "no Kvrocks at hand" in str(stack.refuses(preset("ssd", Sizes())))
    assert stack.refuses(preset("dram", Sizes())) is None


def test_a_python_without_vllm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="has no vLLM; allowed: an environment with vllm and lmcache"):
        local_host.environment(Path(sys.executable), tmp_path)


def test_a_python_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="--python /nowhere/python does not run"):
        local_host.environment(Path("/nowhere/python"), tmp_path)


# --- the command ---


def serve(*words: str, python: Path, folder: Path) -> Any:
    argv = ["serve", "--model", "tiny-llama", "--python", str(python), "--output", str(folder / "out"), *words]
    return CliRunner().invoke(app, argv)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are made once for all tests here."""
    folder = tmp_path_factory.getbasetemp() / "serving-models"
    monkeypatch.setattr(served, "_made", _cached(served._made, folder))


def _cached(make: Any, folder: Path) -> Any:
    return lambda name, _models, how: make(name, folder, how)


SMALL = ("--set", "conversations=2", "--set", "active=1", "--set", "messages=2-2", "--set", "turn_out=4-4")


def test_the_command_measures_and_writes_what_it_measured(python: Path, tmp_path: Path) -> None:
    words = ["--configurations", "none,dram,native", "--rounds", "1", "--accelerator", "cpu", "--questions", "1"]
    result = serve(*words, *SMALL, "--store-gib", "0.125", python=python, folder=tmp_path)
    document = json.loads((tmp_path / "out.json").read_text())
    assert {(p["configuration"], p["pass"]) for p in document["phases"]} == {
        *[("none", "cold"), ("none", "warm"), ("dram", "cold"), ("dram", "warm")]
    }, result.output
    assert result.exit_code == 0, result.output
    assert document["complete"]
    assert [entry["configuration"] for entry in document["not_run"]] == ["native"]
    assert document["stack"]["versions"]["vllm"] == "0.31.0"
    assert all(len(phase["samples"]) == 2 for phase in document["phases"])
    assert "NOT RUN native" in result.output
    assert (tmp_path / "out-logs" / "vllm-0.log").is_file()


def test_the_command_goes_on_from_its_journal(python: Path, tmp_path: Path) -> None:
    words = ["--configurations", "none", "--rounds", "1", "--accelerator", "cpu", "--questions", "0", *SMALL]
    assert serve(*words, python=python, folder=tmp_path).exit_code == 0
    again = serve(*words, "--resume", python=python, folder=tmp_path)
    assert again.exit_code == 0, again.output
    other = serve(*words, "--resume", "--seed", "2", python=python, folder=tmp_path)
    assert other.exit_code == 2
    assert "of another run" in other.output


def test_the_command_needs_nothing_that_a_host_with_vllm_and_lmcache_lacks() -> None:
    missing = ("paramiko", "cryptography", "ansible", "awscrt", "safetensors", "tokenizers", "pip", "uv")
    script = f"import sys; sys.modules.update(dict.fromkeys({missing!r})); import kvstrata.bench.cli"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def test_a_failed_configuration_is_exit_1(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_FAILS", "vllm")
    result = serve("--configurations", "none", "--accelerator", "cpu", *SMALL, python=python, folder=tmp_path)
    assert result.exit_code == 1
    assert "no such option" in result.output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--configurations", "fast"], "--configurations names 'fast'; allowed: none, native, dram"),
        (["--configurations", "none,none"], "--configurations is 'none,none'; allowed: one or more, each once"),
        (["--sweep", "colour=1"], "--sweep 'colour=1'; allowed: NAME=VALUE"),
        (["--passes", "warm,cold"], "--passes is 'warm,cold'; allowed: cold,warm"),
        (["--workloads", "nothing"], "given 'nothing'; allowed: poc"),
        (["--set", "conversations"], "--set 'conversations'; allowed: NAME=VALUE"),
        (["--driver", "curl"], "--driver: given 'curl'; allowed: own"),
        (["--server", "memcached"], "--server is 'memcached'; allowed: kvrocks, redis"),
        (["--router-policy", "kv_aware"], "--router-policy is 'kv_aware'; allowed: cache_aware, round_robin, random"),
        (["--router-policy", "random"], "--router-policy random without --replicas: one engine has no router"),
        (["-i", "/nowhere", "--router-policy", "random"], "a site's router is as it is deployed"),
        (["-i", "/nowhere", "--kv-dtype", "fp8"], "engines keep KV as they are deployed"),
        (["--accelerator", "tpu"], "--accelerator is 'tpu'; allowed: auto, cpu, cuda"),
        (["--dtype", "fp33"], "--dtype is 'fp33'"),
        (["--kvrocks", "/nowhere/kvrocks"], "--kvrocks /nowhere/kvrocks: no such file"),
        (["--hbm-gib", "0"], "none: hbm_gib is 0.0; allowed: more than 0"),
        (["--dram-gib", "1e6"], "are needed for the DRAM tier (1e+06, --dram-gib) and KV in memory (1); allowed"),
        (["-i", "/nowhere"], "inventory /nowhere: no such file or folder"),
        (["-i", "/nowhere", "--configurations", "none"], "--configurations with --inventory needs --node"),
        (["-i", "/nowhere", "--node", "n1"], "--node without --configurations; allowed: both, or neither"),
        (["--dir", "/nowhere"], "--dir /nowhere: no such folder"),
    ],
)
def test_what_is_not_allowed_is_refused_before_anything_starts(
    python: Path, tmp_path: Path, words: list[str], told: str
) -> None:
    before = servers()
    result = serve("--accelerator", "cpu", *words, python=python, folder=tmp_path)
    assert result.exit_code == 2, result.output
    assert told in " ".join(result.output.split())
    assert servers() == before
    assert not (tmp_path / "out.json").exists()


def _ask(port: int, *words: str) -> Any:
    from kvstrata.bench.resp import Connection

    connection = Connection(port, 1 << 16, 20)
    try:
        return connection.command(*words)
    finally:
        connection.close()


def _set(port: int, key: str, value: str) -> None:
    _ask(port, "SET", key, value)


def _keys(port: int) -> int:
    return int(_ask(port, "DBSIZE"))
