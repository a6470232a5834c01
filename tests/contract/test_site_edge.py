"""Requests through a site's edge: its certificate is judged by its own name, and its key is shown."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path

import pytest

from kvstrata.contract.client import Answer, Client, Request
from kvstrata.contract.site import EDGE, STRAIGHT, SiteTarget
from tests.contract.site_fakes import DeployedSite
from tests.verify.fakes.tls import Authority

HOST = "10.9.0.11"


def with_edge(site: DeployedSite, ca: Path, *, name: str = HOST) -> None:
    site.document["edge"] = {
        "port": 8443,
        "plaintext": False,
        "ca": str(ca),
        "names": [name],
        "keys": [{"name": "lab", "value": "the-key"}],
        "virtual_address": None,
    }
    site.document["nodes"][0]["edge"] = {"unit": "kvstrata-edge.service", "host": HOST, "vrrp_unit": None}


def ask(site: DeployedSite, folder: Path, certificate: Path) -> tuple[Answer, list[bytes]]:
    heads: list[bytes] = []

    async def run() -> Answer:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            body = json.dumps({"usage": {"prompt_tokens": 1, "completion_tokens": 1}}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
            await writer.drain()
            writer.close()

        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        site.shells["node1"].ports[HOST, 8443] = server.sockets[0].getsockname()[1]
        with SiteTarget(site.site, folder) as target:
            assert target.through == EDGE
            client = Client(target.front(), 5.0)
            try:
                return await client.send(Request("c", 0, "x", 1, stream=False))
            finally:
                client.close()
                server.close()

    return asyncio.run(run()), heads


def test_the_edge_is_asked_with_its_key_by_its_name(tmp_path: Path) -> None:
    authority, ca = Authority(), tmp_path / "ca.pem"
    ca.write_text(authority.pem)
    with DeployedSite(tmp_path) as site:
        with_edge(site, ca)
        answer, heads = ask(site, tmp_path, authority.issue(tmp_path, HOST, 30))
        assert answer.ok
        assert b"Host: 10.9.0.11:8443\r\n" in heads[0]
        assert b"authorization: Bearer the-key\r\n" in heads[0]
        # It is nobody's business beside.
        with SiteTarget(site.site, tmp_path, STRAIGHT) as target:
            assert not target.front().headers
            assert "the-key" not in json.dumps(target.describe())


def test_a_certificate_for_somebody_else_gets_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstrata.contract.client._FIRST_WAIT_S", 0.01)
    authority, ca = Authority(), tmp_path / "ca.pem"
    ca.write_text(authority.pem)
    with DeployedSite(tmp_path) as site:
        with_edge(site, ca)
        answer, heads = ask(site, tmp_path, authority.issue(tmp_path, "10.9.0.99", 30))
        assert answer.error is not None
        assert "certificate" in answer.error
        assert heads == []
