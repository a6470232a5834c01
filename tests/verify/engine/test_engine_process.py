"""How the engine's process was started, read from what a node prints, and whether it is tied to the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from kvstrata.cluster import LMCache
from kvstrata.verify.check import UnableError, UnmetError
from kvstrata.verify.layers.engine import process
from kvstrata.verify.shell import Completed
from tests.verify.fakes import engines
from tests.verify.fakes.shell import FakeShell

LMCACHE = LMCache("lmcache.service", zmq_port=5555, http_port=8090, chunk_size=256, namespace=None)


def started(text: str) -> process.Started:
    return process.parse(text)["vllm@0.service"]


def test_each_engine_is_read_with_its_words_and_its_file() -> None:
    both = engines.process("vllm@0.service") + "\n" + engines.process("vllm@1.service", config="port: 8001\n")
    found = process.parse(both)
    assert list(found) == ["vllm@0.service", "vllm@1.service"]
    assert found["vllm@0.service"].pid == 4711
    assert found["vllm@0.service"].words[2:] == ("serve", "--config", "/etc/kvstrata/vllm/0.yaml")
    assert found["vllm@0.service"].options["port"] == 8000
    assert found["vllm@1.service"].options["port"] == 8001


@pytest.mark.parametrize("head", ["vllm@0.service 0 ", "vllm@0.service  "])
def test_a_unit_without_a_process_is_left_out(head: str) -> None:
    assert process.parse(f"=====kvstrata unit {head}\n") == {}


def test_the_command_line_overrules_the_file() -> None:
    text = engines.process(config="port: 8000\ndtype: float32\n").replace(
        "--config\n", '--port=8005\n--enforce-eager\n--kv-transfer-config\n{"kv_connector": "Other"}\n--config\n'
    )
    options = started(text).options
    assert (options["port"], options["enforce-eager"], options["dtype"]) == ("8005", True, "float32")
    with pytest.raises(UnmetError, match="process 4711 uses the connector Other"):
        process.connector(started(text), LMCACHE)


def test_an_engine_told_to_use_the_nodes_lmcache_passes() -> None:
    assert process.connector(started(engines.process()), LMCACHE) == "LMCacheMPConnector to port 5555"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (engines.process(config="model: /m\n"), "process 4711 was started without kv-transfer-config"),
        (engines.process(config="model: /m\n", written=3000), "by a file changed since it began, was started without"),
        (engines.process(transfer={"kv_connector": "OffloadingConnector"}), "uses the connector OffloadingConnector"),
        (
            engines.process(transfer=engines.TRANSFER | {"kv_connector_extra_config": {"lmcache.mp.port": 6555}}),
            "asks for LMCache at port 6555, the inventory's is 5555",
        ),
        (engines.process(config="kv-transfer-config: '{'\n"), "kv-transfer-config cannot be read: '{'"),
    ],
)
def test_an_engine_that_was_told_something_else_is_named(text: str, seen: str) -> None:
    with pytest.raises(UnmetError, match=seen):
        process.connector(started(text), LMCACHE)


def test_a_file_that_is_no_yaml_cannot_be_judged() -> None:
    with pytest.raises(UnableError, match="no YAML"):
        process.parse(engines.process(config="a: [b\n"))


def test_a_node_that_refuses_the_command_cannot_be_judged() -> None:
    with pytest.raises(UnableError, match="exited 127"):
        process.read(FakeShell(), ["vllm@0.service"])


class LocalShell(FakeShell):
    """Runs the command here, with a `systemctl` that knows one process."""

    def __init__(self, folder: Path, pid: int) -> None:
        super().__init__()
        self.folder = folder
        fake = folder / "systemctl"
        fake.write_text(f"#!/bin/sh\ncase $* in *MainPID*) echo {pid};; *) echo @2000;; esac\n")
        fake.chmod(0o755)

    def run(self, argv: Sequence[str], timeout_s: float = 30) -> Completed:
        env = os.environ | {"PATH": f"{self.folder}:{os.environ['PATH']}"}
        done = subprocess.run(list(argv), env=env, capture_output=True, text=True, timeout=timeout_s, check=False)
        return Completed(tuple(argv), done.returncode, done.stdout, done.stderr)


@pytest.mark.skipif(shutil.which("sed") is None, reason="not proven: that a node's shell can run the command (no sed)")
def test_the_command_reads_a_real_process(tmp_path: Path) -> None:
    config = tmp_path / "0.yaml"
    config.write_text("port: 8000\n")
    os.utime(config, (1000, 1000))
    argv = [sys.executable, "-c", "input()", "serve", "--config", str(config)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as running:
        found = process.read(LocalShell(tmp_path, running.pid), ["vllm@0.service"])["vllm@0.service"]
        assert running.stdin is not None
        running.stdin.write(b"\n")
    assert found.pid == running.pid
    assert found.words == tuple(argv)
    assert found.options == {"port": 8000, "config": str(config)}
    assert not found.config_is_newer
