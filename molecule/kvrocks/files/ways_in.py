#!/usr/bin/env python3
"""ways_in.py HOST: ask the store of d0 through its socket and over TLS, without and with STORE_PASSWORD."""

from __future__ import annotations

import os
import socket
import ssl
import sys


def ask(connection: socket.socket, line: str) -> str:
    """Send an inline command; return the first line of the answer."""
    connection.sendall(line.encode() + b"\r\n")
    return connection.recv(4096).split(b"\r\n")[0].decode()


def judge(name: str, connection: socket.socket) -> str:
    """Return what the store makes of a client without, then with the password."""
    before = ask(connection, "PING")
    ask(connection, f"AUTH {os.environ['STORE_PASSWORD']}")
    after = ask(connection, "PING")
    first = "refused" if "NOAUTH" in before else before
    return f"{name} {first} without, {'accepted' if after == '+PONG' else after} with it"


def main() -> None:
    """Use each way in."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect("/run/kvstrata/kvrocks/d0.sock")
        print(judge("socket", connection))
    context = ssl.create_default_context()
    # A certificate of the test's own, of which only is asked that it is shown.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((sys.argv[1], 6766), timeout=10) as plain, context.wrap_socket(plain) as connection:
        print(judge("tls", connection))


if __name__ == "__main__":
    main()
