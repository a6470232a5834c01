"""Listen on a TCP port for one connection, read all that it sends, and end: for a node that has no store."""

from __future__ import annotations

import json
import socket
import sys


def main() -> None:
    """Do what the argument says."""
    asked = json.loads(sys.argv[1])
    family = socket.AF_INET6 if ":" in asked["host"] else socket.AF_INET
    with socket.create_server((asked["host"], asked["port"]), family=family) as listener:
        listener.settimeout(asked["wait_s"])
        taken = 0
        try:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(asked["most_s"])
                while data := connection.recv(1 << 18):
                    taken += len(data)
        except OSError:
            pass
    print(json.dumps({"bytes": taken}))


if __name__ == "__main__":
    main()
