"""A store with an expired certificate: the lab's stores with TLS, then one whose certificate is not valid any more."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kvstrata.lab import shell
from kvstrata.lab.planted.services import restart, written
from kvstrata.lab.planted.site import Site
from kvstrata.paths import PROJECT

FOLDER = "/etc/kvstrata/planted"
_PORT = 7666
_VARIABLES = f"""---
kvrocks_tls:
  first_port: {_PORT}
  cert: {FOLDER}/cert.pem
  key: {FOLDER}/key.pem
lmcache_stores_ca: {FOLDER}/ca.pem
"""


def inventory(site: Site) -> Path:
    """The lab's inventory, with TLS between caches and stores."""
    return site.scratch / "inventory"


def plant(site: Site) -> None:
    """Deploy stores and caches with TLS, then give node2's d0 a certificate that ended yesterday."""
    shutil.rmtree(inventory(site), ignore_errors=True)
    shutil.copytree(site.inventory, inventory(site))
    (inventory(site) / "group_vars" / "all" / "planted.yml").write_text(_VARIABLES)
    addresses = [IPv4Address(node.address) for node in site.nodes]
    files = certificates(addresses, datetime.now(UTC))
    for node in site.nodes:
        lines = [written(f"{FOLDER}/{name}.pem", files[name]) for name in ("ca", "cert", "key")]
        node.run("\n".join([f"mkdir -p {FOLDER}", *lines, f"chmod 600 {FOLDER}/key.pem"]))
    _deploy(site, inventory(site))
    # systemd hands a store its certificate when it starts: only this one is started anew.
    site.node("node2").run(f"{written(f'{FOLDER}/cert.pem', files['expired'])}\nsystemctl restart kvrocks@d0.service")


def unplant(site: Site) -> None:
    """Deploy stores and caches as they were."""
    if not inventory(site).exists():
        return
    _deploy(site, site.inventory)
    for node in site.nodes:
        node.run(f"rm -rf {FOLDER}")
    shutil.rmtree(inventory(site))


def _deploy(site: Site, at: Path) -> None:
    base = ("env", f"ANSIBLE_CONFIG={PROJECT / 'ansible.cfg'}", "ansible-playbook", f"--inventory={at}")
    shell.run((*base, str(PROJECT / "playbooks" / "stores.yml")), timeout_s=600)
    shell.run((*base, str(PROJECT / "playbooks" / "serving.yml"), "--tags=lmcache"), timeout_s=600)
    for node in site.nodes:
        # Once more with the engine, which may not have noticed Ansible's.
        node.run(restart("lmcache.service"))


def certificates(addresses: list[IPv4Address], now: datetime) -> dict[str, str]:
    """Return `ca`, `cert`, `key`, and `expired`: another certificate of that key, which ended a day ago. All as PEM."""
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kvstrata planted CA")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kvstrata planted store")])
    day = timedelta(days=1)

    def made(name: x509.Name, public: ec.EllipticCurvePublicKey, end: datetime, ca: bool) -> str:
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 90 * day)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        )
        if ca:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        else:
            names = x509.SubjectAlternativeName([x509.IPAddress(address) for address in addresses])
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(authority, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM).decode()

    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return {
        "ca": made(issuer, authority.public_key(), now + 90 * day, True),
        "cert": made(subject, key.public_key(), now + 90 * day, False),
        "expired": made(subject, key.public_key(), now - day, False),
        "key": key.private_bytes(pem, pkcs8, serialization.NoEncryption()).decode(),
    }
