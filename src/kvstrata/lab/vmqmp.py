"""QEMU's machine protocol over its unix socket: one command at a time, events set aside."""

import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kvstrata.lab.errors import LabError


class QmpError(LabError):
    """QEMU refused a command, or is no longer there to answer."""


class Qmp:
    """A connection to one QEMU process; a context manager. Every wait is bounded by `timeout_s` seconds."""

    def __init__(self, path: Path, *, timeout_s: float = 60) -> None:
        """Connect and leave negotiation mode; QmpError when nothing listens or answers there."""
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise QmpError(f"no QEMU listens on {path}: {error.strerror}") from error
        self._stream = self._socket.makefile("rb")
        try:
            if "QMP" not in self._read("its greeting"):
                raise QmpError(f"what listens on {path} does not speak QMP")
            self.execute("qmp_capabilities")
        except QmpError:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return the connection itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection; QEMU goes on."""
        self._stream.close()
        self._socket.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run `command` and return what it returns; argument names with `-` are given with `_`.

        QmpError with QEMU's own words when it refuses.
        """
        message: dict[str, Any] = {"execute": command}
        if arguments:
            message["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self.send(message)

    def send(self, message: dict[str, Any]) -> Any:
        """Send a whole command and return what it returns, for arguments whose names hold `_`."""
        command = message["execute"]
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise QmpError(f"QEMU at {self._path} is gone before {command}: {error.strerror}") from error
        while True:
            reply = self._read(f"the answer to {command}")
            if "error" in reply:
                raise QmpError(f"QEMU refuses {command}: {reply['error']['desc']}")
            if "return" in reply:
                return reply["return"]
            # Everything else is an event, which comes when it likes.

    def _read(self, what: str) -> dict[str, Any]:
        try:
            line = self._stream.readline()
        except TimeoutError as error:
            raise QmpError(f"QEMU at {self._path} does not send {what}") from error
        except OSError as error:
            raise QmpError(f"QEMU at {self._path} is gone before {what}: {error.strerror}") from error
        if not line:
            raise QmpError(f"QEMU at {self._path} is gone before {what}")
        try:
            reply = json.loads(line)
        except ValueError as error:
            raise QmpError(f"what listens on {self._path} does not speak QMP") from error
        if not isinstance(reply, dict):
            raise QmpError(f"what listens on {self._path} does not speak QMP")
        return reply
