"""A store in a few lines: RESP2 over a real socket, with knobs for the ways a store can be wrong."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from types import TracebackType
from typing import BinaryIO


class RespServer:
    def __init__(self, password: str | None, engine: str = "kvrocks", folder: str = "/drives/d0/db") -> None:
        self.password = password
        self.engine = engine
        self.folder = folder
        self.corrupt = False
        self.forgets = False
        self.keeps_deleted = False
        self.full = ""
        """What it answers to writes, when it refuses them."""
        self.stalling = False
        """Whether RocksDB stops writes again and again."""
        self.config = {"port": "6666", "workers": "8", "max-db-size": "2", "rocksdb.write_buffer_size": "256"}
        self.info = {"used_db_size": "5000", "max_db_size": str(2 << 30), "num_background_errors": "0"}
        self.info |= {"disk_capacity": "1000000", "used_disk_size": "400000", "level0_file_limit_stop[default]": "0"}
        self.indexes: dict[bytes, int] = {}
        """NS:BYTES -> how many chunks."""
        self.data: dict[bytes, dict[bytes, bytes]] = {}
        self.commands: list[str] = []
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    outer._talk(self.rfile, self.wfile)  # type: ignore[arg-type]

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> RespServer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _talk(self, reader: BinaryIO, writer: BinaryIO) -> None:
        allowed = self.password is None
        while line := reader.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int(reader.readline()[1:])
                words.append(reader.read(size))
                reader.read(2)
            name = words[0].decode().upper()
            self.commands.append(name)
            if name == "AUTH":
                allowed = self.password is not None and words[-1].decode() == self.password
                writer.write(b"+OK\r\n" if allowed else self._refusal())
            elif not allowed:
                writer.write(b"-NOAUTH Authentication required.\r\n")
            else:
                writer.write(self._answer(name, words[1:]))
            writer.flush()

    def conf(self) -> str:
        """Its configuration file, as the role renders it."""
        shown = {"dir": self.folder, **self.config, "requirepass": self.password or ""}
        return "# Written by Ansible\n" + "".join(f'{name} "{value}"\n' for name, value in shown.items())

    def _refusal(self) -> bytes:
        # The two servers word it differently.
        if self.password is None:
            return b"-ERR Client sent AUTH, but no password is set\r\n"
        return b"-ERR invalid password\r\n" if self.engine == "kvrocks" else b"-WRONGPASS invalid pair\r\n"

    def _answer(self, name: str, words: list[bytes]) -> bytes:
        match name:
            case "PING":
                return b"+PONG\r\n"
            case "HSET" if self.full:
                return f"-{self.full}\r\n".encode()
            case "HSET":
                self.data[words[0]] = {} if self.forgets else {words[1]: words[2]}
                return b":1\r\n"
            case "HGET":
                value = self.data.get(words[0], {}).get(words[1])
                return _bulk(value[:-1] + b"?" if value is not None and self.corrupt else value)
            case "EXPIRE":
                return b":1\r\n"
            case "DEL":
                if self.keeps_deleted:
                    return b":0\r\n"
                return b":%d\r\n" % (self.data.pop(words[0], None) is not None)
            case "EXISTS":
                return b":%d\r\n" % (words[0] in self.data)
            case "INFO":
                if self.stalling:
                    stop = "level0_file_limit_stop[default]"
                    self.info[stop] = str(int(self.info[stop]) + 1)
                own = {"kvrocks_version": "2.10.1"} if self.engine == "kvrocks" else {}
                lines = {"redis_version": "7.0.15", **own, **self.info}
                return _bulk("".join(f"{field}:{value}\r\n" for field, value in lines.items()).encode())
            case "CONFIG":
                shown = {"dir": self.folder, **self.config, "requirepass": self.password or ""}
                return _array([word.encode() for pair in shown.items() for word in pair])
            case "SMEMBERS":
                return _array(list(self.indexes))
            case "ZCARD":
                return b":%d\r\n" % self.indexes.get(words[0].removeprefix(b"kvsx:"), 0)
        return b"-ERR unknown command\r\n"


def _array(values: list[bytes]) -> bytes:
    return b"*%d\r\n%s" % (len(values), b"".join(_bulk(value) for value in values))


def _bulk(value: bytes | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value)
