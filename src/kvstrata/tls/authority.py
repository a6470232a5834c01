"""An authority of a site's own and one certificate that it signs, both made and renewed on the controller.

The folder then holds ca.pem and ca.key, cert.pem and key.pem. Clients trust ca.pem, which stays when the other is
renewed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kvstrata.tls.pair import Pair, PairError

# A clock that is a little late must not refuse what was made this minute.
_BEFORE = timedelta(hours=1)


_USAGES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


@dataclass(frozen=True)
class Issued:
    """Which certificate of a folder it is, by its files there, and what it may be shown as."""

    certificate: str = "cert.pem"
    key: str = "key.pem"
    usages: tuple[str, ...] = ("server",)


@dataclass(frozen=True)
class Terms:
    """How long certificates are valid, in days; each is renewed when less than `renew` are left."""

    authority: int = 3650
    certificate: int = 365
    renew: int = 30


def ensure(
    folder: Path,
    owner: str,
    names: Sequence[str],
    now: datetime,
    terms: Terms,
    *,
    issued: Issued | None = None,
    write: bool = True,
) -> list[str]:
    """Make what is missing, renew what ends soon or no longer fits, and return what was done and why.

    Args:
        folder: where the four files are; made if missing, for its owner alone.
        owner: what the authority is called, as "kvstrata edge of SITE".
        names: names and addresses that clients will use.
        now: with its time zone.
        terms: how long certificates are valid.
        issued: which of several certificates of that authority; without it the only one, of a server.
        write: False writes nothing, and tells what would be.

    Raises:
        ValueError: without names, or if a certificate would need renewing as soon as it is made.
    """
    if not names:
        raise ValueError("a certificate needs at least one name or address")
    issued = issued or Issued()
    if not issued.usages or set(issued.usages) - set(_USAGES):
        raise ValueError(f"a certificate for {', '.join(issued.usages) or 'nothing'}; allowed: {', '.join(_USAGES)}")
    if terms.renew >= min(terms.authority, terms.certificate):
        raise ValueError(f"renewing {terms.renew} days before the end leaves no day without a renewal")
    done = []
    authority = _good(folder / "ca.pem", folder / "ca.key", now, terms.renew)
    if isinstance(authority, str):
        done.append(f"ca.pem: {authority}")
        authority = _make_authority(owner, now, terms.authority)
        _put(folder, {"ca.key": authority.key, "ca.pem": authority.certificate}, write=write)
    current = _good(folder / issued.certificate, folder / issued.key, now, terms.renew)
    why = current if isinstance(current, str) else _unfit(current, authority, names, issued.usages)
    if why:
        done.append(f"{issued.certificate}: {why}")
        made = _sign(authority, owner, names, issued.usages, now, terms.certificate)
        _put(folder, {issued.key: made.key, issued.certificate: made.certificate}, write=write)
    return done


def _good(certificate: Path, key: Path, now: datetime, renew: int) -> Pair | str:
    """Return the pair, or why there must be a new one."""
    if not certificate.exists():
        return "there was none"
    try:
        pair = Pair.read(certificate, key)
    except PairError as error:
        return str(error)
    left = pair.days_left(now)
    return f"it ends in {left:.0f} days" if left < renew else pair


def _unfit(pair: Pair, authority: Pair, names: Sequence[str], usages: Sequence[str]) -> str:
    """Return why a certificate is not what is wanted, or nothing."""
    if not pair.signed_by(authority):
        return "another authority signed it"
    if pair.names != frozenset(names):
        return f"it was for {', '.join(sorted(pair.names)) or 'no name'}"
    if pair.usages != frozenset(_USAGES[usage] for usage in usages):
        return "it was for another purpose"
    return ""


def _make_authority(owner: str, now: datetime, days: int) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, owner)])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    built = (
        _begun(name, name, key.public_key(), now, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return Pair(built.sign(key, hashes.SHA256()), key)


def _sign(authority: Pair, owner: str, names: Sequence[str], usages: Sequence[str], now: datetime, days: int) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{owner}: {' and '.join(usages)}")])
    issuer = authority.certificate
    signer = authority.key
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise ValueError("the key of the authority is none that this module made")
    built = (
        _begun(subject, issuer.subject, key.public_key(), now, days)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_USAGES[usage] for usage in usages]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            critical=False,
        )
    )
    return Pair(built.sign(signer, hashes.SHA256()), key)


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _put(folder: Path, files: dict[str, object], *, write: bool) -> None:
    """Write each file whole or not at all, the key before its certificate and readable for its owner alone."""
    if not write:
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, content in files.items():
        temporary = folder / f".{name}.new"
        temporary.unlink(missing_ok=True)
        temporary.touch(mode=0o644 if isinstance(content, x509.Certificate) else 0o600, exist_ok=False)
        temporary.write_bytes(_pem(content))
        temporary.replace(folder / name)


def _pem(content: object) -> bytes:
    if isinstance(content, x509.Certificate):
        return content.public_bytes(serialization.Encoding.PEM)
    if isinstance(content, ec.EllipticCurvePrivateKey):
        form = serialization.PrivateFormat.PKCS8
        return content.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    raise TypeError(f"{type(content).__name__} has no PEM form here")
