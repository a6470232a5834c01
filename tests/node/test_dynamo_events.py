"""Dynamo's broker: what a publisher says reaches the subscribers of its topic."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kvstrata.artifacts import environment, wheelhouse
from kvstrata.artifacts.lock import LockError, read_lock
from kvstrata.node import dynamo_events
from kvstrata.paths import PROJECT, cache_dir

# In the environment of a node, for the controller has no ZMQ. A subscription takes a moment on its way through the
# broker to the publisher, which says nothing to nobody: so it is said until it is heard.
PASSED_ON = """
import socket, subprocess, sys, zmq
def port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])
ports = [port(), port()]
broker = subprocess.Popen([sys.executable, "-m", "kvstrata.node.dynamo_events", "127.0.0.1", *ports])
context = zmq.Context()
publisher, subscriber = context.socket(zmq.PUB), context.socket(zmq.SUB)
publisher.connect(f"tcp://127.0.0.1:{ports[0]}")
subscriber.connect(f"tcp://127.0.0.1:{ports[1]}")
subscriber.subscribe(b"kv")
subscriber.rcvtimeo = 100
heard = None
for _ in range(200):
    publisher.send_multipart([b"other", b"0"])
    publisher.send_multipart([b"kv", b"1"])
    try:
        heard = subscriber.recv_multipart()
        break
    except zmq.Again:
        pass
broker.terminate()
print(heard, broker.wait(10))
"""


@pytest.fixture(scope="module")
def node_python() -> Path:
    """The interpreter of a node's environment; without it nothing here can be tested, and that is no pass."""
    try:
        return environment.ensure(read_lock(PROJECT / "artifacts.lock.yml").wheelhouse("cpu"), cache_dir())[0]
    except (LockError, wheelhouse.DownloadError, subprocess.CalledProcessError) as error:
        pytest.fail(f"no environment with ZMQ (kvstrata artifacts environment cpu): {error}")


def test_an_event_reaches_who_asked_for_its_topic_and_the_broker_ends_when_it_is_told_to(node_python: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(PROJECT / "src")}
    argv = [str(node_python), "-c", PASSED_ON]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "[b'kv', b'1'] -15\n", done.stderr


@pytest.mark.parametrize("port", ["0", "65536", "tcp", ""])
def test_what_is_no_port_is_refused(port: str) -> None:
    with pytest.raises(ValueError, match="allowed: 1 to 65535"):
        dynamo_events.endpoint("127.0.0.1", port)


def test_how_it_is_called_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert dynamo_events.main(["127.0.0.1"]) == 2
    assert "usage: dynamo_events ADDRESS IN OUT" in capsys.readouterr().err
