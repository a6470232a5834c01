"""TLS as a client sees it: one handshake to look at the certificate, one to judge it."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509

from kvstrata.verify.check import UnmetError
from kvstrata.verify.shell import Shell


@dataclass(frozen=True)
class Certificate:
    """What a server showed. Times are in UTC."""

    subject: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    protocol: str

    def days_left(self, now: datetime) -> float:
        """Days until it expires, negative when it has."""
        return (self.not_after - now).total_seconds() / 86400


def look(shell: Shell, host: str, port: int, timeout_s: float) -> Certificate:
    """The certificate that host:port shows, whatever it is worth; UnmetError when there is no handshake."""
    # To see a certificate that is no good, it must not be refused. Nothing is sent over this connection.
    with _handshake(shell, host, port, timeout_s, believing()) as connection:
        shown, protocol = connection.getpeercert(binary_form=True), connection.version()
    if shown is None:
        raise UnmetError(f"{host}:{port}: no certificate is shown")
    return read(shown, protocol or "unknown")


def trusting(authority: str | None) -> ssl.SSLContext:
    """A client that trusts `authority` (PEM), or what this machine trusts; UnmetError when it cannot be read."""
    if authority is None:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=authority)
    except (ssl.SSLError, ValueError) as error:
        raise UnmetError(f"the certificate authority cannot be read: {error}") from error
    return context


def believing() -> ssl.SSLContext:
    """A client that takes any certificate: for questions whose answer does not depend on it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def judge(shell: Shell, host: str, port: int, timeout_s: float, client: ssl.SSLContext, name: str = "") -> None:
    """Shake hands as `client` with a server that should be `name`, its host if empty; UnmetError says what is wrong."""
    with _handshake(shell, host, port, timeout_s, client, name):
        pass


def read(certificate: bytes, protocol: str) -> Certificate:
    """What a certificate in DER says of itself."""
    found = x509.load_der_x509_certificate(certificate)
    try:
        alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [*alternatives.get_values_for_type(x509.DNSName)]
        names += [str(address) for address in alternatives.get_values_for_type(x509.IPAddress)]
    except x509.ExtensionNotFound:
        names = []
    return Certificate(
        found.subject.rfc4514_string(),
        tuple(names),
        found.not_valid_before_utc,
        found.not_valid_after_utc,
        protocol,
    )


def now() -> datetime:
    """The controller's time."""
    return datetime.now(UTC)


@contextlib.contextmanager
def _handshake(
    shell: Shell, host: str, port: int, timeout_s: float, context: ssl.SSLContext, name: str = ""
) -> Iterator[ssl.SSLSocket]:
    tunnel = shell.tunnel(host, port)
    try:
        with (
            socket.create_connection(("127.0.0.1", tunnel.port), timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=name or host) as encrypted,
        ):
            yield encrypted
    except ssl.SSLCertVerificationError as error:
        raise UnmetError(f"{host}:{port}: {error.verify_message}") from error
    except (ssl.SSLError, OSError) as error:
        reason = tunnel.error or getattr(error, "reason", None) or str(error) or type(error).__name__
        raise UnmetError(f"{host}:{port}: no TLS: {reason}") from error
