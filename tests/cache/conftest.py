"""A site of two stores with two namespaces, and the command on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from kvstrata.cache import cli, reach
from kvstrata.cluster import Node
from tests.cache.servers import NEW, NEW_NS, OLD, PASSWORD, Server, document, fill, write
from tests.verify.fakes.shell import FakeShell

OLD_CHUNKS = [("a1", 100_000), ("a2", 100_000), ("a3", 300_000)]
NEW_CHUNKS = [("b1", 100_000), ("b2", 200_000)]


@dataclass
class Caches:
    """Two stores and the description of their site."""

    servers: list[Server]
    path: Path
    namespace: str | None = NEW_NS

    def run(self, *words: str, answer: str | None = None) -> Result:
        """Run `kvstrata cache`; nothing that it prints may hold a password."""
        write(self.path, document(self.servers, self.namespace))
        done = CliRunner().invoke(cli.app, [*words, "--cluster", str(self.path)], input=answer)
        assert PASSWORD not in done.output
        return done

    def json(self, *words: str, status: int = 0) -> dict[str, Any]:
        """Run it with --json; return the document."""
        done = self.run(*words, "--json")
        assert done.exit_code == status, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        assert found["exit_code"] == status
        return found

    def chunks(self, namespace: str) -> int:
        """Chunks of a namespace on both stores."""
        return sum(server.chunks(namespace) for server in self.servers)

    def traces(self, namespace: str) -> list[bytes]:
        """What names a namespace on any store."""
        return [trace for server in self.servers for trace in server.traces(namespace)]


@pytest.fixture(params=["redis", "kvrocks"])
def kind(request: pytest.FixtureRequest) -> str:
    """The server under test."""
    return str(request.param)


@pytest.fixture
def empty(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caches]:
    """Two stores with nothing on them."""
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(kind, tmp_path / f"store{number}")) for number in (1, 2)]
        # What a store listens on is what its node's tunnel leads to.
        shell = FakeShell(ports={("127.0.0.1", server.port): server.port for server in servers})

        def shell_of(node: Node) -> FakeShell:
            return shell

        monkeypatch.setattr(reach, "_shell", shell_of)
        yield Caches(servers, tmp_path / "cluster.json")


@pytest.fixture
def caches(empty: Caches) -> Caches:
    """Two stores with an old namespace and the current one."""
    fill(empty.servers, OLD, OLD_CHUNKS)
    fill(empty.servers, NEW, NEW_CHUNKS)
    return empty
