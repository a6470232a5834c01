"""What is made, what is renewed and when, and that OpenSSL agrees."""

from __future__ import annotations

import ssl
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kvstrata.tls import Issued, Pair, PairError, Terms, ensure

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
NAMES = ["10.0.0.1", "10.0.0.100", "llm.example.org"]


def run(folder: Path, names: list[str] | None = None, days: float = 0, terms: Terms | None = None) -> list[str]:
    return ensure(folder, "edge of test", names or NAMES, NOW + timedelta(days=days), terms or Terms())


def certificate(folder: Path) -> Pair:
    return Pair.read(folder / "cert.pem", folder / "key.pem")


def test_the_first_run_makes_all_four_and_the_second_nothing(tmp_path: Path) -> None:
    assert run(tmp_path) == ["ca.pem: there was none", "cert.pem: there was none"]
    assert {path.name for path in tmp_path.iterdir()} == {"ca.pem", "ca.key", "cert.pem", "key.pem"}
    assert run(tmp_path) == []


def test_openssl_verifies_the_certificate_for_each_of_its_names(tmp_path: Path) -> None:
    ensure(tmp_path, "edge of test", NAMES, datetime.now(UTC), Terms())
    for given in (["-verify_ip", "10.0.0.100"], ["-verify_hostname", "llm.example.org"]):
        argv = [
            "openssl",
            "verify",
            "-purpose",
            "sslserver",
            *given,
            "-CAfile",
            f"{tmp_path}/ca.pem",
            f"{tmp_path}/cert.pem",
        ]
        assert subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip().endswith("OK")
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    run(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE((folder / name).stat().st_mode) for name in ("ca.key", "key.pem")] == [0o600, 0o600]


def test_a_certificate_is_renewed_before_it_ends_and_the_authority_stays(tmp_path: Path) -> None:
    run(tmp_path)
    authority = (tmp_path / "ca.pem").read_bytes()
    assert run(tmp_path, days=334) == []
    assert run(tmp_path, days=336) == ["cert.pem: it ends in 29 days"]
    assert (tmp_path / "ca.pem").read_bytes() == authority
    assert certificate(tmp_path).days_left(NOW + timedelta(days=336)) == pytest.approx(365)


def test_other_names_are_another_certificate_and_the_message_says_which_they_were(tmp_path: Path) -> None:
    run(tmp_path)
    assert run(tmp_path, names=["10.0.0.9"]) == ["cert.pem: it was for 10.0.0.1, 10.0.0.100, llm.example.org"]
    assert certificate(tmp_path).names == {"10.0.0.9"}


def test_a_new_authority_signs_a_new_certificate(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "ca.key").unlink()
    first, second = run(tmp_path)
    assert first.startswith("ca.pem: ")
    assert "ca.key cannot be read" in first
    assert second == "cert.pem: another authority signed it"
    assert certificate(tmp_path).signed_by(Pair.read(tmp_path / "ca.pem", tmp_path / "ca.key"))


def test_nothing_is_written_where_that_is_not_wanted(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    assert len(ensure(folder, "o", NAMES, NOW, Terms(), write=False)) == 2
    assert not folder.exists()


@pytest.mark.parametrize("terms", [Terms(certificate=30), Terms(authority=10)])
def test_a_certificate_that_would_be_renewed_at_once_is_refused(tmp_path: Path, terms: Terms) -> None:
    with pytest.raises(ValueError, match="leaves no day"):
        run(tmp_path, terms=terms)


def test_what_is_no_pair_says_why_without_a_byte_of_it(tmp_path: Path) -> None:
    run(tmp_path / "a")
    run(tmp_path / "b")
    (tmp_path / "text").write_text("secret text")
    tries = {
        (tmp_path / "none", tmp_path / "a" / "key.pem"): "cannot be read: No such file",
        (tmp_path / "text", tmp_path / "a" / "key.pem"): "holds no certificate",
        (tmp_path / "a" / "cert.pem", tmp_path / "text"): "holds no private key",
        (tmp_path / "a" / "cert.pem", tmp_path / "b" / "key.pem"): "is not the key of",
    }
    for (certificate_path, key_path), why in tries.items():
        with pytest.raises(PairError, match=why) as refusal:
            Pair.read(certificate_path, key_path)
        assert "secret" not in str(refusal.value)


def test_one_authority_signs_several_certificates_each_for_its_purpose(tmp_path: Path) -> None:
    member = Issued("m1.pem", "m1.key", ("server", "client"))
    assert ensure(tmp_path, "o", NAMES, NOW, Terms(), issued=member) == [
        "ca.pem: there was none",
        "m1.pem: there was none",
    ]
    client = Issued("client.pem", "client.key", ("client",))
    assert ensure(tmp_path, "o", ["clients"], NOW, Terms(), issued=client) == ["client.pem: there was none"]
    assert ensure(tmp_path, "o", NAMES, NOW, Terms(), issued=member) == []
    both = Issued("client.pem", "client.key", ("client", "server"))
    assert ensure(tmp_path, "o", ["clients"], NOW, Terms(), issued=both) == ["client.pem: it was for another purpose"]


def test_a_purpose_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a certificate for mail; allowed: server, client"):
        ensure(tmp_path, "o", NAMES, NOW, Terms(), issued=Issued(usages=("mail",)))
