"""Certificates of simulated stores: one authority, and for each node one signed by it."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def issue(
    folder: Path, wanted: Mapping[str, tuple[tuple[str, ...], float]], kind: str = "store"
) -> tuple[dict[str, ssl.SSLContext], str]:
    """By node a TLS server with its certificate, and the authority's own as PEM.

    `wanted` says for each node its addresses and the days that its certificate is still valid, negative for an expired
    one. Nodes of the same days share one certificate for all their addresses.
    """
    authority, signer = _authority()
    contexts: dict[str, ssl.SSLContext] = {}
    for days in sorted({days for _, days in wanted.values()}):
        names = [name for name, (_, its) in wanted.items() if its == days]
        addresses = dict.fromkeys(address for name in names for address in wanted[name][0])
        context = _server(folder / f"{kind}-{days:g}.pem", list(addresses), days, authority, signer)
        contexts |= dict.fromkeys(names, context)
    return contexts, authority.public_bytes(serialization.Encoding.PEM).decode()


def _authority() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key, name = ec.generate_private_key(ec.SECP256R1()), _name("simulated authority")
    builder = _builder(name, name, key, 365).add_extension(x509.BasicConstraints(True, None), critical=True)
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.sign(key, hashes.SHA256()), key


def _server(
    file: Path, addresses: list[str], days: float, authority: x509.Certificate, signer: ec.EllipticCurvePrivateKey
) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address)) for address in addresses])
    builder = _builder(_name("kvrocks"), authority.subject, key, days).add_extension(names, critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    certificate = builder.add_extension(issuer, critical=False).sign(signer, hashes.SHA256())
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: float
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=400))
        .not_valid_after(now + timedelta(days=days))
    )
