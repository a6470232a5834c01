"""The certificate of a store, shown by a real TLS server, as its clients would judge it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kvstrata.verify.check import Check, Status
from kvstrata.verify.layers import store
from tests.verify.fakes.nodes import files
from tests.verify.fakes.resp import RespServer
from tests.verify.fakes.shell import closed_port
from tests.verify.fakes.site import Site
from tests.verify.fakes.tls import Authority, TlsServer

ADDRESS = "10.9.0.11"
PORT = 7666
CA = "/etc/kvstrata/ca.pem"
CONF = "/etc/kvstrata/kvrocks/d0.conf"


class Encrypted:
    """The first store of a site, listening with TLS too."""

    def __init__(self, site: Site, folder: Path, stack: ExitStack) -> None:
        self.site, self._folder, self._stack = site, folder, stack
        self.authority = Authority()
        self.trusted = self.authority.pem
        site.document["nodes"][0]["stores"][0] |= {"tls_port": PORT, "tls_ca": CA}
        self.shell = site.nodes["node1"].shell
        server: RespServer = site.resp["node1"]
        self.shell.answers["sh -c for file"] = files({CONF: server.conf, CA: lambda: self.trusted})

    def show(self, days: float, address: str = ADDRESS, authority: Authority | None = None, since: float = 30) -> None:
        path = (authority or self.authority).issue(self._folder, address, days, since)
        self.shell.ports[ADDRESS, PORT] = self._stack.enter_context(TlsServer(path)).port

    def check(self) -> Check:
        """What is seen, which may be the one failure here."""
        found = list(store.checks(self.site.context()))
        assert [check.id for check in found if check.bad] in ([], ["store.certificate"])
        return next(check for check in found if check.id == "store.certificate")


@pytest.fixture
def encrypted(site: Site, tmp_path: Path) -> Iterator[Encrypted]:
    with ExitStack() as stack:
        yield Encrypted(site, tmp_path, stack)


def test_a_good_certificate_passes_and_tells_how_long_it_lasts(encrypted: Encrypted) -> None:
    encrypted.show(days=100)
    check = encrypted.check()
    assert check.status is Status.PASS, check
    assert check.seen.startswith("CN=store, TLSv1.3, until 20")
    assert check.seen.endswith("(100 days), trusted")
    assert check.data["protocol"] == "TLSv1.3"
    assert check.data["days_left"] == pytest.approx(100, abs=0.1)


def test_an_expired_certificate_fails_with_its_date(encrypted: Encrypted) -> None:
    encrypted.show(days=-2)
    check = encrypted.check()
    assert check.status is Status.FAIL
    assert check.seen.endswith(": expired 2.0 days ago")


def test_one_that_expires_soon_fails_with_the_days_left(encrypted: Encrypted) -> None:
    encrypted.show(days=5)
    assert encrypted.check().seen.endswith(": expires in 5.0 days, 14 should be left")
    encrypted.site.document["verify"]["limits"] = {"certificate_days": 3}
    assert encrypted.check().status is Status.PASS


def test_one_that_is_not_valid_yet_fails(encrypted: Encrypted) -> None:
    encrypted.show(days=100, since=-1)
    assert ": not valid before " in encrypted.check().seen


def test_one_of_another_authority_fails(encrypted: Encrypted) -> None:
    encrypted.show(days=100, authority=Authority("another"))
    check = encrypted.check()
    assert check.status is Status.FAIL
    assert "clients refuse it" in check.seen
    assert "unable to get local issuer certificate" in check.seen


def test_one_for_another_address_fails_and_names_what_it_is_for(encrypted: Encrypted) -> None:
    encrypted.show(days=100, address="10.9.0.99")
    check = encrypted.check()
    assert check.status is Status.FAIL
    assert "for 10.9.0.99: clients refuse it" in check.seen
    assert "IP address mismatch" in check.seen


def test_a_port_that_does_not_listen_fails(encrypted: Encrypted) -> None:
    assert encrypted.check().seen == f"{ADDRESS}:{PORT}: no TLS: Connection refused"
    encrypted.shell.ports[ADDRESS, PORT] = closed_port()
    assert f"{ADDRESS}:{PORT}: no TLS: " in encrypted.check().seen


def test_a_port_that_speaks_no_tls_fails(encrypted: Encrypted) -> None:
    encrypted.shell.ports[ADDRESS, PORT] = encrypted.shell.ports[ADDRESS, 6666]
    check = encrypted.check()
    assert check.status is Status.FAIL
    assert ": no TLS: " in check.seen


def test_an_authority_that_is_no_certificate_fails(encrypted: Encrypted) -> None:
    encrypted.show(days=100)
    encrypted.trusted = "-----BEGIN nothing"
    assert "the certificate authority cannot be read" in encrypted.check().seen


def test_an_authority_that_is_not_on_the_node_leaves_it_unproven(encrypted: Encrypted) -> None:
    encrypted.show(days=100)
    encrypted.shell.answers["sh -c for file"] = files({CONF: encrypted.site.resp["node1"].conf})
    check = encrypted.check()
    assert check.status is Status.SKIP
    assert check.seen == f"NOT CHECKED: whether clients trust it: {CA} is not on node1, or unreadable"


def test_without_an_authority_only_its_dates_are_judged(encrypted: Encrypted) -> None:
    del encrypted.site.document["nodes"][0]["stores"][0]["tls_ca"]
    encrypted.show(days=100, authority=Authority("another"))
    assert "trusted by nobody" in encrypted.check().seen
    encrypted.show(days=-1)
    assert encrypted.check().status is Status.FAIL


def test_a_store_without_tls_has_no_such_check(site: Site) -> None:
    assert "store.certificate" not in {check.id for check in store.checks(site.context())}


def test_a_store_that_is_down_is_named_once(encrypted: Encrypted) -> None:
    encrypted.show(days=-2)
    del encrypted.shell.ports[ADDRESS, 6666]
    found = list(store.checks(encrypted.site.context()))
    assert [check.id for check in found if check.bad] == ["store.auth"]
