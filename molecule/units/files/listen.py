"""Hears what probes tell; and starts, stops and asks for units, by systemd or by the runner."""

import json
import socket
import subprocess
import time

NAME = "\0kvstrata-probe"
STATE = "/run/kvstrata-units-test"
POLL_S = 0.2


class Ears:
    """What the probes say, in the order in which they say it."""

    def __init__(self):
        """Listen."""
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
            connection.settimeout(20)
            return json.loads(b"".join(iter(lambda: connection.recv(65536), b"")))


class Manager:
    """What starts and stops units: exit code, output and seconds of each."""

    def __init__(self, name, argv, state):
        """Run `argv`, then a verb, units and `state`."""
        self.name, self._argv, self._state = name, argv, state

    def start(self, *units):
        """Start units."""
        return self._run("start", *units, *self._state)

    def stop(self, *units):
        """Stop units."""
        return self._run("stop", *units, *self._state)

    def settled(self, unit):
        """Return whether nothing of the unit runs, and nothing of it will by itself."""
        active, main = self._asked(unit)
        return active in ("inactive", "failed") or (active == "active" and not main)

    def main_process(self, unit):
        """Return the number of its main process, 0 if there is none."""
        return self._asked(unit)[1]

    def _run(self, *words):
        began = time.monotonic()
        # With a folder and a variable that no unit may see.
        environment = {"PYTHONPATH": "/opt/runner", "PATH": "/usr/bin:/bin", "STRAY": "1"}
        done = subprocess.run(
            [*self._argv, *words], capture_output=True, text=True, cwd="/opt", env=environment, timeout=120, check=False
        )
        return done.returncode, done.stdout + done.stderr, time.monotonic() - began


class Systemd(Manager):
    """systemctl."""

    def _asked(self, unit):
        said = self._run("show", "--property=ActiveState,MainPID", unit)[1]
        found = dict(line.split("=", 1) for line in said.splitlines())
        return found["ActiveState"], int(found["MainPID"])


class Runner(Manager):
    """kvstrata.unit_runner."""

    def _asked(self, unit):
        (found,) = json.loads(self._run("status", unit, "--json", *self._state)[1])
        return found["active"], found["main_pid"]


SYSTEMD = Systemd("systemd", ["systemctl"], [])


def manager_path():
    """Return the PATH of units, which is systemd's own choice and no unit's."""
    lines = subprocess.run(["systemctl", "show-environment"], capture_output=True, text=True, check=True).stdout
    return next(line.removeprefix("PATH=") for line in lines.splitlines() if line.startswith("PATH="))


RUNNER = Runner("runner", ["python3", "-m", "kvstrata.unit_runner"], ["--state", STATE, "--path", manager_path()])
