"""A TCP proxy on loopback between adapter and store that cuts, holds or delays what passes."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass

_PART_BYTES = 1 << 16
_NO_LINGER = struct.pack("ii", 1, 0)


@dataclass
class Rule:
    """What happens to connections, in one direction, once `after` more bytes passed on them."""

    after: int
    times: int
    """So many connections are struck; the rest pass."""
    hold: bool = False
    """Hold the connection open and pass nothing more, instead of cutting it."""


class Proxy:
    """Listens on `port` and passes everything on to another port of loopback; `close` ends it."""

    def __init__(self, target: int) -> None:
        """Start listening."""
        self._target = target
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._released = threading.Event()
        self.replies: Rule | None = None
        self.requests: Rule | None = None
        self.answer_to = b""
        """The next request that has these bytes in it is passed on, and its connection cut before the answer."""
        self.delay_s = 0.0
        """Before each part of a reply is passed on."""
        self.bytes_per_s = 0.0
        """Most that is passed on of the replies on each connection; 0 is as fast as it goes."""
        self.struck = 0
        """Connections that were cut or held."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def release(self) -> None:
        """Strike no more, and cut what is held."""
        self.replies = self.requests = None
        self.delay_s = self.bytes_per_s = 0.0
        self._released.set()

    def close(self) -> None:
        """Stop listening and cut every connection."""
        self.release()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            sockets = list(self._sockets)
        for one in sockets:
            _cut(one)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target), 5.0)
            except OSError:
                _cut(client)
                continue
            server.settimeout(None)
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._sockets.add(one)
            asked = threading.Event()
            threading.Thread(target=self._pump, args=(client, server, "requests", asked), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, "replies", asked), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, direction: str, asked: threading.Event) -> None:
        passed, known = 0, None
        try:
            while part := source.recv(_PART_BYTES):
                rule: Rule | None = getattr(self, direction)
                if rule is not known:
                    passed, known = 0, rule
                if rule is not None and passed + len(part) > rule.after and self._strikes(rule):
                    sink.sendall(part[: max(0, rule.after - passed)])
                    if rule.hold:
                        self._released.wait()
                    break
                if direction == "requests" and self.answer_to and self.answer_to in part:
                    self.answer_to = b""
                    self.struck += 1
                    asked.set()
                elif direction == "replies" and asked.is_set():
                    break
                if self.delay_s and direction == "replies":
                    time.sleep(self.delay_s)
                if self.bytes_per_s and direction == "replies":
                    time.sleep(len(part) / self.bytes_per_s)
                passed += len(part)
                sink.sendall(part)
        except OSError:
            pass  # one of the two ended: so does the other
        finally:
            _cut(sink)
            _cut(source)
            with self._lock:
                self._sockets -= {source, sink}

    def _strikes(self, rule: Rule) -> bool:
        with self._lock:
            if rule.times <= 0:
                return False
            rule.times -= 1
            self.struck += 1
            return True


def _cut(one: socket.socket) -> None:
    """Close with a reset, which nobody can take for a proper end."""
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        one.shutdown(socket.SHUT_RDWR)
    one.close()
