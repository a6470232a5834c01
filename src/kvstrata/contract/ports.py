"""Ports for programs that are started in a moment, and are started again at the same ports."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

# Below what the kernel gives to outgoing connections (ip_local_port_range): while a worker is down, nobody may be given
# the port that it comes back to. Dynamo's own listeners take theirs from the kernel.
_FIRST, _LAST = 18000, 31999


def ports(chance: random.Random) -> Iterator[int]:
    """Yield ports of loopback that nobody listens on, each once; from a random one on, for runs beside each other."""
    count = _LAST - _FIRST + 1
    begin = chance.randrange(count)
    for step in range(count):
        port = _FIRST + (begin + step) % count
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port
