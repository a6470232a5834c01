"""A container registry on loopback: token, index, manifest, and blobs on another host."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

TOKEN = "read-only"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest(content: bytes) -> str:
    """Return the digest of a blob."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass(frozen=True)
class Asked:
    """One request."""

    host: str
    path: str
    authorization: str


@dataclass
class Answer:
    """What is sent back."""

    status: int = 200
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    """Bytes that are promised and not sent."""


class Web:
    """An HTTP server of whatever `answer` says, under two names: 127.0.0.1 and localhost."""

    def __init__(self, answer: Callable[[Asked], Answer]) -> None:
        self.asked: list[Asked] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = Asked(self.headers["Host"].split(":")[0], self.path, self.headers.get("Authorization", ""))
                outer.asked.append(asked)
                reply = answer(asked)
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(reply.content)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.content[: len(reply.content) - reply.cut])

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_port

    def __enter__(self) -> Web:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        """Return a URL of this server."""
        return f"http://{host}:{self.port}{path}"


class Registry:
    """One image, apache/kvrocks:2.10.1, of two platforms."""

    def __init__(self, layer: bytes) -> None:
        self.layer = layer
        self.failing = 0
        """How often a blob still answers 503 before it is sent."""
        self.cut = 0
        self.forged = False
        """Whether manifests are others than their digests say."""
        other = b"another layer"
        self.manifests = {
            "amd64": _json({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [_layer(other), _layer(layer)]}),
            "arm64": _json({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [_layer(other)]}),
        }
        entries = [
            {"digest": digest(text), "platform": {"os": "linux", "architecture": name}}
            for name, text in self.manifests.items()
        ]
        # What signs an image is listed beside it, for a platform that there is not.
        entries.append({"digest": digest(b"x"), "platform": {"os": "unknown", "architecture": "unknown"}})
        self.index = _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
        self.web = Web(self._answer)

    @property
    def image(self) -> str:
        """The image as a lock names it."""
        return self.web.url("/apache/kvrocks:2.10.1")

    def _answer(self, asked: Asked) -> Answer:
        parts = urlsplit(asked.path)
        if parts.path == "/token":
            wanted = {"service": ["registry"], "scope": ["repository:apache/kvrocks:pull"]}
            return Answer(content=_json({"token": TOKEN})) if parse_qs(parts.query) == wanted else Answer(400)
        if parts.path == "/storage" and asked.host == "localhost":
            return self._blob()
        if asked.authorization != f"Bearer {TOKEN}":
            challenge = (
                f'Bearer realm="{self.web.url("/token")}",service="registry",scope="repository:apache/kvrocks:pull"'
            )
            return Answer(401, headers={"WWW-Authenticate": challenge})
        return self._image(parts.path.removeprefix("/v2/apache/kvrocks/"))

    def _image(self, path: str) -> Answer:
        if path in ("manifests/2.10.1", f"manifests/{digest(self.index)}"):
            return Answer(content=self.index)
        for text in self.manifests.values():
            if path == f"manifests/{digest(text)}":
                return Answer(content=text + b" " * self.forged)
        if path == f"blobs/{digest(self.layer)}":
            return Answer(307, headers={"Location": self.web.url("/storage", "localhost")})
        return Answer(404)

    def _blob(self) -> Answer:
        if self.failing:
            self.failing -= 1
            return Answer(503)
        return Answer(content=self.layer, cut=self.cut)


def _layer(content: bytes) -> dict[str, object]:
    return {"digest": digest(content), "size": len(content)}


def _json(document: object) -> bytes:
    return json.dumps(document).encode()
