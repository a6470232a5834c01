#!/usr/bin/python
"""Await a Redis-protocol store, and compare its effective configuration with what was rendered for it."""

from __future__ import annotations

import socket
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: kvstrata_store
short_description: Await stores and compare their configuration
description: Speaks RESP itself, so that a node needs no client. Changes nothing.
options:
  stores:
    description: Stores of this node, each with host, port and password; other keys are passed over.
    type: list
    elements: dict
    required: true
  engine: {description: What must answer., type: str, choices: [kvrocks, redis], required: true}
  config: {description: Directive to expected value; compared with CONFIG GET., type: dict, default: {}}
  timeout: {description: Seconds to wait until it is ready., type: int, default: 60}
"""

POLL_S = 0.2
CALL_TIMEOUT_S = 5.0


class ReplyError(Exception):
    """The store answered with an error."""


class Connection:
    """One RESP2 connection."""

    def __init__(self, host: str, port: int) -> None:
        """Connect, or raise OSError."""
        self._socket = socket.create_connection((host, port), timeout=CALL_TIMEOUT_S)
        self._stream = self._socket.makefile("rb")

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()
        self._socket.close()

    def call(self, *words: str) -> Any:
        """Send one command and return its reply; raises ReplyError or OSError."""
        parts = [f"*{len(words)}\r\n".encode()]
        for word in words:
            data = word.encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
        self._socket.sendall(b"".join(parts))
        return self._reply()

    def _reply(self) -> Any:
        line = self._stream.readline()
        if not line.endswith(b"\r\n"):
            raise OSError("the store closed the connection")
        kind, rest = line[:1], line[1:-2].decode()
        if kind == b"-":
            raise ReplyError(rest)
        if kind == b"$":
            return None if rest == "-1" else self._stream.read(int(rest) + 2)[:-2].decode(errors="replace")
        if kind == b"*":
            return [self._reply() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest


def await_ready(host: str, port: int, password: str, timeout: float) -> Connection:
    """Return an authenticated connection to a store that answers PING; raises TimeoutError with the last reason."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection = Connection(host, port)
            connection.call("AUTH", password)
            connection.call("PING")
        except (OSError, ReplyError) as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{host}:{port} is not ready after {timeout:.0f} s: {error}") from error
            # The one wait here is between two looks at the condition, never instead of a look.
            time.sleep(POLL_S)
        else:
            return connection


def engine_of(info: str) -> str:
    """Return which server wrote an INFO text."""
    return "kvrocks" if "kvrocks_version:" in info else "redis"


def differences(connection: Connection, wanted: dict[str, Any]) -> list[str]:
    """Return one line for each directive whose effective value is not the wanted one."""
    lines = []
    for name, value in wanted.items():
        reply = connection.call("CONFIG", "GET", name)
        seen = reply[1] if len(reply) > 1 else None
        if seen is None or str(seen).strip() != str(value).strip():
            lines.append(f"{name}: rendered {value}, effective {seen if seen is not None else 'unknown to the server'}")
    return lines


def check(store: dict[str, Any], engine: str, config: dict[str, Any], timeout: float) -> str:
    """Await one store; return what is wrong with it, or nothing."""
    address = f"{store['host']}:{store['port']}"
    try:
        connection = await_ready(store["host"], store["port"], store["password"], timeout)
    except TimeoutError as error:
        return str(error)
    running = engine_of(connection.call("INFO", "server"))
    if running != engine:
        return f"{address} runs {running}, expected {engine}"
    lines = differences(connection, config)
    connection.close()
    return f"{address}: the effective configuration is not the rendered one: {'; '.join(lines)}" if lines else ""


def main() -> None:
    """Run the module."""
    store = {
        "host": {"type": "str", "required": True},
        "port": {"type": "int", "required": True},
        "password": {"type": "str", "required": True, "no_log": True},
        "drive": {"type": "str"},
        "node": {"type": "str"},
        "max_db_size_gib": {"type": "int"},
    }
    module = AnsibleModule(
        argument_spec={
            "stores": {"type": "list", "elements": "dict", "required": True, "options": store},
            "engine": {"type": "str", "choices": ["kvrocks", "redis"], "required": True},
            "config": {"type": "dict", "default": {}},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    want = module.params
    # In check mode a store that does not run yet is no error: the run would have started it.
    patience = 0 if module.check_mode else want["timeout"]
    wrong = [check(store, want["engine"], want["config"], patience) for store in want["stores"]]
    wrong = [message for message in wrong if message]
    if wrong and not module.check_mode:
        module.fail_json(msg="; ".join(wrong))
    module.exit_json(changed=False, msg="NOT CHECKED in check mode: " + "; ".join(wrong) if wrong else "all ready")


if __name__ == "__main__":
    main()
