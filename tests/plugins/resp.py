"""A store that can still be loading, for the module that awaits one."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import BinaryIO

PASSWORD = "pw"


class Store:
    """Speaks enough RESP2 over a real socket; answers PING with LOADING `loading` times."""

    def __init__(
        self,
        *,
        engine: str = "kvrocks",
        loading: int = 0,
        config: Mapping[str, str] | None = None,
        password: str = PASSWORD,
        refuses: str = "",
    ) -> None:
        self.engine = engine
        self.loading = loading
        self.config = dict(config or {})
        self.password = password
        self.refuses = refuses
        """A directive that CONFIG SET does not take, though it should."""
        self.commands: list[str] = []
        self.sets: list[tuple[str, str]] = []
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    outer._talk(self.rfile, self.wfile)  # type: ignore[arg-type]

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Store:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _talk(self, reader: BinaryIO, writer: BinaryIO) -> None:
        allowed = False
        while line := reader.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int(reader.readline()[1:])
                words.append(reader.read(size + 2)[:-2].decode())
            self.commands.append(words[0])
            if words[0] == "AUTH":
                allowed = words[1] == self.password
                answer = b"+OK\r\n" if allowed else b"-WRONGPASS invalid username-password pair\r\n"
            else:
                answer = self._answer(words) if allowed else b"-NOAUTH Authentication required.\r\n"
            writer.write(answer)
            writer.flush()

    def _answer(self, words: list[str]) -> bytes:
        match words:
            case ["PING"] if self.loading > 0:
                self.loading -= 1
                return b"-LOADING Redis is loading the dataset in memory\r\n"
            case ["PING"]:
                return b"+PONG\r\n"
            case ["INFO", "server"]:
                own = "kvrocks_version:2.10.1\r\n" if self.engine == "kvrocks" else ""
                return bulk(f"# Server\r\nredis_version:7.0.15\r\n{own}")
            case ["CONFIG", "GET", "*"]:
                pairs = {**self.config, "requirepass": self.password}
                head = f"*{2 * len(pairs)}\r\n".encode()
                return head + b"".join(bulk(name) + bulk(value) for name, value in pairs.items())
            case ["CONFIG", "SET", name, value] if name != self.refuses:
                self.sets.append((name, value))
                if name == "requirepass":
                    self.password = value
                else:
                    self.config[name] = value
                return b"+OK\r\n"
        return b"-ERR unknown command\r\n"


def bulk(text: str) -> bytes:
    data = text.encode()
    return b"$%d\r\n%s\r\n" % (len(data), data)
