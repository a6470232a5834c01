"""TCP from this machine itself, without a node in between: what somebody meets who belongs to no node."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Sequence

from kvstrata.verify.shell import Reach


def reach(targets: Sequence[tuple[str, int]], timeout_s: float) -> dict[tuple[str, int], Reach]:
    """What comes of a connection to each of host and port, all tried at the same time; they are closed at once."""
    found = dict.fromkeys(targets, Reach.SILENT)
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for target in found:
            try:
                family, kind, protocol, _, address = socket.getaddrinfo(*target, type=socket.SOCK_STREAM)[0]
                trying = stack.enter_context(socket.socket(family, kind, protocol))
            except OSError:
                continue
            trying.setblocking(False)
            trying.connect_ex(address)
            selector.register(trying, selectors.EVENT_WRITE, target)
        deadline = time.monotonic() + timeout_s
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                tried = key.fileobj
                assert isinstance(tried, socket.socket)  # noqa: S101 - for mypy: registered above
                failure = tried.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                found[key.data] = Reach.REFUSED if failure else Reach.OPEN
                selector.unregister(tried)
    return found


def own_address(host: str) -> str | None:
    """This machine's address on its way to `host`; None where it has no way. Nothing is sent."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as asking:
            asking.connect(address)
            own: str = asking.getsockname()[0]
    except OSError:
        return None
    return own
