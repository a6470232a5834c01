"""A certificate and its key, as two PEM files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes


class PairError(ValueError):
    """Two files that are no certificate and its key; the message says why, and holds nothing of them."""


@dataclass(frozen=True)
class Pair:
    """What both files hold. The certificate is the first one of its file; what follows is its chain."""

    certificate: x509.Certificate
    key: PrivateKeyTypes

    @classmethod
    def read(cls, certificate: Path, key: Path) -> Self:
        """Read both files.

        Raises:
            PairError: if a file is missing, is no PEM, has a password, or if the key is of another certificate.
        """
        try:
            first = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
        except OSError as error:
            raise PairError(f"{certificate} cannot be read: {error.strerror}") from None
        except ValueError:
            raise PairError(f"{certificate} holds no certificate in PEM form") from None
        try:
            private = serialization.load_pem_private_key(key.read_bytes(), None)
        except OSError as error:
            raise PairError(f"{key} cannot be read: {error.strerror}") from None
        except TypeError:
            raise PairError(f"{key} is protected by a password, which no service could type") from None
        except (ValueError, UnsupportedAlgorithm):
            raise PairError(f"{key} holds no private key in PEM form") from None
        pair = cls(first, private)
        if not pair.matches:
            raise PairError(f"{key} is not the key of {certificate}")
        return pair

    @property
    def matches(self) -> bool:
        """Whether the key is that of the certificate."""
        form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        mine: bytes = self.key.public_key().public_bytes(*form)
        return mine == self.certificate.public_key().public_bytes(*form)

    def days_left(self, now: datetime) -> float:
        """Return the days until the certificate ends, less than nothing for one that has ended."""
        return (self.certificate.not_valid_after_utc - now).total_seconds() / 86400

    def signed_by(self, authority: Pair) -> bool:
        """Return whether `authority` signed the certificate."""
        try:
            self.certificate.verify_directly_issued_by(authority.certificate)
        except (InvalidSignature, ValueError, TypeError):
            return False
        return True

    @property
    def names(self) -> frozenset[str]:
        """The names and addresses for which the certificate is valid."""
        try:
            found = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return frozenset()
        addresses = found.get_values_for_type(x509.IPAddress)
        return frozenset([*found.get_values_for_type(x509.DNSName), *map(str, addresses)])

    @property
    def usages(self) -> frozenset[x509.ObjectIdentifier]:
        """The purposes for which the certificate is valid; empty for any."""
        try:
            return frozenset(self.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        except x509.ExtensionNotFound:
            return frozenset()
