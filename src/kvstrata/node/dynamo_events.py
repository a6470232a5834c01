"""Pass events on between the workers and the frontends of NVIDIA Dynamo: its ZMQ broker.

`python -m kvstrata.node.dynamo_events ADDRESS IN OUT`

Without a broker every worker and every frontend opens event sockets of its own, on all addresses and at ports that the
kernel chooses. With one they connect to it, at two ports of one address: publishers to IN, subscribers to OUT. Where
there are several, each process connects to all of them and hears every event once, so one may be away.

It keeps nothing. What is lost while it is away, a frontend notices by its number and asks the worker for.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any

logger = logging.getLogger(__name__)

MESSAGES = 100_000
"""Most messages that wait for one peer, as in Dynamo's own sockets. ZMQ's default of 1000 drops some of a burst."""


def endpoint(address: str, port: str) -> str:
    """Return where a socket is bound; ValueError where the port is none."""
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"port is {port!r}; allowed: 1 to 65535")
    return f"tcp://{address}:{port}"


def sockets(context: Any, address: str, incoming: str, outgoing: str) -> tuple[Any, Any]:
    """Bind and return the socket of publishers and that of subscribers."""
    import zmq

    bound = []
    for kind, port in ((zmq.XSUB, incoming), (zmq.XPUB, outgoing)):
        socket = context.socket(kind)
        socket.set_hwm(MESSAGES)
        # A host that is gone is noticed, and its place given back.
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 60)
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(endpoint(address, port))
        bound.append(socket)
    return bound[0], bound[1]


def main(args: Sequence[str]) -> int:
    """Pass events on until the process is told to stop."""
    if len(args) != 3:
        print("usage: dynamo_events ADDRESS IN OUT", file=sys.stderr)
        return 2
    import zmq

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    publishers, subscribers = sockets(zmq.Context(), *args)
    logger.info("passing on events from %s to %s of %s", args[1], args[2], args[0])
    zmq.proxy(publishers, subscribers)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
