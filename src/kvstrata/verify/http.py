"""HTTP to a service of a node, through the node's SSH connection."""

from __future__ import annotations

import json
import ssl
from collections.abc import Generator, Mapping
from typing import Any

import httpx

from kvstrata.verify import prometheus
from kvstrata.verify.check import UnmetError
from kvstrata.verify.shell import Shell
from kvstrata.verify.tunnelled import TunnelTransport

EXCERPT_CHARS = 300


class UnansweredError(UnmetError):
    """The service gave no answer, or not the kind of answer it should give."""


class Service:
    """An HTTP service at host:port as the node sees it. Requests raise UnansweredError."""

    def __init__(
        self,
        shell: Shell,
        host: str,
        port: int,
        timeout_s: float = 10,
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Open the way; the service itself is not contacted yet.

        Args:
            tls: how to speak TLS with it, and whom to trust; None for plain HTTP.
            headers: sent with every request.
        """
        self.address = f"{host}:{port}"
        self._tunnel = shell.tunnel(host, port)
        # The controller's proxy settings are not meant for a tunnel.
        if tls is None:
            self._client = httpx.Client(
                base_url=f"http://{self.address}",
                timeout=timeout_s,
                headers=headers,
                trust_env=False,
                transport=TunnelTransport(self._tunnel),
            )
        else:
            self._client = httpx.Client(
                base_url=f"https://127.0.0.1:{self._tunnel.port}",
                timeout=timeout_s,
                headers={"host": self.address, **(headers or {})},
                trust_env=False,
                transport=_Named(host, tls),
            )

    def status(self, path: str, headers: Mapping[str, str] | None = None) -> int:
        """The status code that GET `path` answers."""
        return self._request("GET", path, headers=headers).status_code

    def ready(self) -> bool:
        """Whether it says that it takes requests; raises UnansweredError when it says nothing."""
        return self.status("/health") == httpx.codes.OK

    def text(self, path: str) -> str:
        """The body of GET `path`, which must answer 200."""
        return self._ok("GET", path).text

    def json(self, path: str) -> Any:
        """The decoded body of GET `path`, which must answer 200 with JSON."""
        return self._decoded("GET", path)

    def post(self, path: str, body: Mapping[str, object], timeout_s: float | None = None) -> Any:
        """The decoded answer to a JSON body, which must be 200."""
        return self._decoded("POST", path, body, timeout_s)

    def order(self, path: str) -> tuple[int, str]:
        """The status code and body that POST `path` answers; nothing is sent with it."""
        response = self._request("POST", path)
        return response.status_code, " ".join(response.text.split())[:EXCERPT_CHARS]

    def metrics(self) -> prometheus.Samples:
        """Everything at /metrics."""
        return prometheus.parse(self.text("/metrics"))

    def events(self, path: str, body: Mapping[str, object], timeout_s: float) -> Generator[Any]:
        """The decoded server-sent events that answer a JSON body, up to [DONE]. Closing it ends the request."""
        try:
            with self._client.stream("POST", path, json=dict(body), timeout=timeout_s) as response:
                if response.status_code != httpx.codes.OK:
                    response.read()
                    raise UnansweredError(self._said("POST", path, response))
                for line in response.iter_lines():
                    data = line.removeprefix("data:").strip()
                    if not line.startswith("data:"):
                        continue
                    if data == "[DONE]":
                        return
                    yield self._parse("POST", path, data)
        except httpx.HTTPError as error:
            raise self._silent("POST", path, error) from error
        raise UnansweredError(f"POST {self.address}{path}: the stream ended before [DONE]")

    def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        timeout_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        timeout = httpx.USE_CLIENT_DEFAULT if timeout_s is None else httpx.Timeout(timeout_s)
        try:
            payload = None if body is None else dict(body)
            return self._client.request(method, path, json=payload, timeout=timeout, headers=headers)
        except httpx.HTTPError as error:
            raise self._silent(method, path, error) from error

    def _ok(
        self, method: str, path: str, body: Mapping[str, object] | None = None, timeout_s: float | None = None
    ) -> httpx.Response:
        response = self._request(method, path, body, timeout_s)
        if response.status_code != httpx.codes.OK:
            raise UnansweredError(self._said(method, path, response))
        return response

    def _decoded(
        self, method: str, path: str, body: Mapping[str, object] | None = None, timeout_s: float | None = None
    ) -> Any:
        return self._parse(method, path, self._ok(method, path, body, timeout_s).text)

    def _parse(self, method: str, path: str, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            raise UnansweredError(f"{method} {self.address}{path}: not JSON: {text[:EXCERPT_CHARS]!r}") from None

    def _said(self, method: str, path: str, response: httpx.Response) -> str:
        body = " ".join(response.text.split())[:EXCERPT_CHARS]
        return f"{method} {self.address}{path} answered {response.status_code}: {body or 'empty'}"

    def _silent(self, method: str, path: str, error: httpx.HTTPError) -> UnansweredError:
        reason = self._tunnel.error or str(error) or type(error).__name__
        return UnansweredError(f"{method} {self.address}{path}: {reason}")


class _Named(httpx.HTTPTransport):
    """TLS with a server that is known by another name than that of the tunnel's end here."""

    def __init__(self, name: str, tls: ssl.SSLContext) -> None:
        super().__init__(verify=tls, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
        self._name = name

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions = {**request.extensions, "sni_hostname": self._name}
        return super().handle_request(request)
