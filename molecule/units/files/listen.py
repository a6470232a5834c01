"""Hears what probes tell; and starts and stops units, by systemd or by the runner."""

import json
import socket
import subprocess
import time

NAME = "\0kvstrata-probe"
STATE = "/run/kvstrata-units-test"
RUNNER = ["python3", "-m", "kvstrata.unit_runner"]


class Ears:
    """What the probes say, in the order in which they say it."""

    def __init__(self):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(NAME)
        self._socket.listen(16)

    def hear(self, timeout_s):
        """Return the next word, None if there is none in time."""
        self._socket.settimeout(timeout_s)
        try:
            connection, _ = self._socket.accept()
        except TimeoutError:
            return None
        with connection:
            connection.settimeout(timeout_s)
            return json.loads(b"".join(iter(lambda: connection.recv(65536), b"")))


class Systemd:
    name = "systemd"

    def start(self, *units):
        return run(["systemctl", "start", *units])

    def stop(self, *units):
        return run(["systemctl", "stop", *units])

    def forget(self, *units):
        run(["systemctl", "reset-failed", *units])


class Runner:
    name = "runner"

    def start(self, *units):
        return run([*RUNNER, "start", *units, "--state", STATE])

    def stop(self, *units):
        return run([*RUNNER, "stop", *units, "--state", STATE])

    def forget(self, *units):
        pass


def run(words):
    """Return exit code, output and seconds."""
    began = time.monotonic()
    # Not from a folder or with variables that a unit could inherit unseen.
    environment = {"PYTHONPATH": "/opt/runner", "PATH": "/usr/bin:/bin", "STRAY": "must reach no unit"}
    done = subprocess.run(words, capture_output=True, text=True, cwd="/opt", env=environment, timeout=120)
    return done.returncode, done.stdout + done.stderr, time.monotonic() - began
