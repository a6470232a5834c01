"""A store as Kvrocks shows itself over RESP2: password, hashes with fields, INFO, CONFIG, and the cache's indexes."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import asyncssh

from kvstrata.cluster import Store
from kvstrata.l2.names import INDEX_REGISTRY
from tests.verify.simulated.state import DRIVE_BYTES, GIB, FakeNode
from tests.verify.simulated.web import Talk

FULL = "ERR Reached the max DB size, the write is not allowed (max-db-size)"
FILES_LIMIT_GIB = 850


class FakeStore:
    """What one store holds and says. Everything but a written value follows from its node's state."""

    def __init__(self, store: Store, state: FakeNode, unknown: Callable[[str], None]) -> None:
        self._store, self._state, self._unknown = store, state, unknown
        self.data: dict[bytes, dict[bytes, bytes]] = {}
        self.down = False

    @property
    def config(self) -> dict[str, str]:
        """Every directive in force."""
        return {
            "bind": f"{self._store.host} 127.0.0.1",
            "port": str(self._store.port),
            "dir": f"/var/lib/kvstrata/drives/{self._store.drive}/kvrocks",
            "requirepass": self._store.password,
            "workers": "8",
            "max-db-size": str(FILES_LIMIT_GIB),
            "rocksdb.write_buffer_size": "256",
        }

    def rendered(self) -> str:
        """Its configuration file, as the role kvrocks renders it."""
        lines = (f"{name} {value}" if name == "bind" else f'{name} "{value}"' for name, value in self.config.items())
        return "# Ansible managed\n" + "\n".join(lines) + "\n"

    def info(self) -> dict[str, object]:
        """INFO, every section."""
        limit = FILES_LIMIT_GIB * GIB
        return {
            "redis_version": "7.0.15",
            "kvrocks_version": "2.15.0",
            "uptime_in_seconds": 86400,
            "used_db_size": limit if self._state.full else limit // 2,
            "max_db_size": limit,
            "disk_capacity": DRIVE_BYTES,
            "used_disk_size": DRIVE_BYTES // 2,
            "num_background_errors": 0,
            "memtable_flush_pending": 0,
            "compaction_pending": 0,
            "level0_file_limit_stop[default]": 0,
            "loading": 0,
        }

    async def talk(self, reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]) -> None:
        """Serve one connection."""
        allowed = False
        while words := await _command(reader):
            name = words[0].decode().upper()
            if name == "AUTH":
                allowed = words[-1].decode() == self._store.password
                writer.write(b"+OK\r\n" if allowed else b"-ERR invalid password\r\n")
            elif not allowed:
                writer.write(b"-NOAUTH Authentication required.\r\n")
            else:
                writer.write(self.answer(name, words[1:]))
            await writer.drain()

    def answer(self, name: str, words: list[bytes]) -> bytes:
        """The reply to a command of a client that may ask."""
        match name, words:
            case "PING", _:
                return b"+PONG\r\n"
            case "HSET", _ if self._state.full:
                return f"-{FULL}\r\n".encode()
            case "HSET", [key, *pairs]:
                self.data.setdefault(key, {}).update(zip(pairs[::2], pairs[1::2], strict=True))
                return b":%d\r\n" % (len(pairs) // 2)
            case "HGET", [key, name_of_field]:
                return _bulk(self.data.get(key, {}).get(name_of_field))
            case (("EXPIRE" | "PEXPIRE"), _):
                return b":1\r\n"
            case (("DEL" | "UNLINK"), keys):
                return b":%d\r\n" % sum(self.data.pop(key, None) is not None for key in keys)
            case "EXISTS", keys:
                return b":%d\r\n" % sum(key in self.data for key in keys)
            case "INFO", _:
                text = "".join(f"{key}:{value}\r\n" for key, value in self.info().items())
                return _bulk(text.encode())
            case "CONFIG", [_, pattern, *_]:
                wanted = pattern.decode()
                shown = {key: value for key, value in self.config.items() if wanted in ("*", key)}
                return _array([word.encode() for pair in shown.items() for word in pair])
            case "SMEMBERS", [key] if key == _bytes(INDEX_REGISTRY):
                return _array([])
        self._unknown(f"{name} {b' '.join(words)[:60]!r} at the store {self._store.address}")
        return b"-ERR unknown command\r\n"


def over_tls(context: ssl.SSLContext) -> Talk:
    """A TLS server that shows its certificate, which is all that the verifier asks of it."""

    async def encrypted(reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = context.wrap_bio(incoming, outgoing, server_side=True)
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                data = await reader.read(1 << 16)
                if not data:
                    return
                incoming.write(data)
            except ssl.SSLError:
                # The client refuses the certificate, and said so.
                return
        writer.write(outgoing.read())
        await reader.read()

    return encrypted


async def _command(reader: asyncssh.SSHReader[bytes]) -> list[bytes]:
    line = await reader.readline()
    if not line:
        return []
    words = []
    for _ in range(int(line[1:])):
        size = int((await reader.readline())[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _array(values: list[bytes]) -> bytes:
    return b"*%d\r\n%s" % (len(values), b"".join(_bulk(value) for value in values))


def _bulk(value: bytes | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value)
