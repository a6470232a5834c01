"""What is let in and what is not, read from the text; molecule/edge sees packets."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from kvstrata.firewall import Firewall, render

NODES = ("10.0.0.2", "10.0.0.1")


def chain(firewall: Firewall) -> list[str]:
    """The rules, in their order."""
    text = render(firewall).partition("chain input {")[2]
    return [line.strip() for line in text.splitlines() if line.strip() not in ("", "}")][1:]


def test_internal_ports_are_open_to_nodes_and_closed_to_others() -> None:
    assert chain(Firewall(NODES, ports=[8000, 6666])) == [
        "ct state established,related accept",
        'iifname "lo" accept',
        "ip saddr { 10.0.0.1, 10.0.0.2 } accept",
        "tcp dport { 6666, 8000 } counter drop",
    ]


def test_what_is_open_comes_before_every_drop() -> None:
    rules = chain(Firewall(NODES, ports=[8000], ranges=[(32768, 60999)], open_ports=[22, 8443], client_ports=[9000]))
    drops = [index for index, rule in enumerate(rules) if rule.endswith("drop")]
    assert rules.index("tcp dport { 22, 8443 } accept") < min(drops)


def test_clients_reach_the_router_and_nothing_else() -> None:
    rules = chain(Firewall(NODES, ports=[8000], client_ports=[9000], client_networks=["10.1.0.0/16", "fd00::/8"]))
    assert rules[3:] == [
        "ip saddr { 10.1.0.0/16 } tcp dport { 9000 } accept",
        "ip6 saddr { fd00::/8 } tcp dport { 9000 } accept",
        "tcp dport { 9000 } counter drop",
        "tcp dport { 8000 } counter drop",
    ]


def test_without_networks_everybody_reaches_the_router_and_with_none_nobody_does() -> None:
    assert "tcp dport { 9000 } accept" in chain(Firewall(NODES, client_ports=[9000]))
    assert chain(Firewall(NODES, client_ports=[9000], client_networks=[]))[-1] == "tcp dport { 9000 } counter drop"


def test_networks_within_others_are_written_once() -> None:
    rules = chain(Firewall(NODES, client_ports=[9000], client_networks=["10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8"]))
    assert "ip saddr { 10.0.0.0/8 } tcp dport { 9000 } accept" in rules


def test_vrrp_is_for_nodes() -> None:
    assert chain(Firewall(NODES, vrrp=True))[-1] == "ip protocol 112 counter drop"


def test_only_our_table_is_touched() -> None:
    text = render(Firewall(NODES, ports=[8000]))
    assert set(re.findall(r"table inet (\w+)", text)) == {"kvstrata"}
    assert "flush" not in text


def test_other_rules_have_another_digest() -> None:
    digests = {re.findall(r"chain rules_(\w+)", render(Firewall(NODES, ports=[port])))[0] for port in (8000, 8001)}
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("firewall", "why"),
    [
        (Firewall([]), "no address of a node"),
        (Firewall(["n1"]), "n1"),
        (Firewall(NODES, ports=[0]), "0 to 0 are no ports"),
        (Firewall(NODES, ranges=[(9, 8)]), "9 to 8 are no ports"),
        (Firewall(NODES, ports=[22], open_ports=[22]), "port 22 is both"),
        (Firewall(NODES, client_networks=["10.0.0.1/24"]), "host bits"),
    ],
)
def test_what_cannot_work_is_refused(firewall: Firewall, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        render(firewall)


@pytest.mark.skipif(
    shutil.which("nft") is None, reason="NOT CHECKED: that nft takes the rules, for there is no nft here"
)
def test_nft_takes_the_rules() -> None:
    text = render(Firewall(NODES, [8000], [(32768, 60999)], [9000], ["10.1.0.0/16", "fd00::/8"], [22], vrrp=True))
    done = subprocess.run(["nft", "--check", "--file", "-"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "not permitted" in done.stderr, done.stderr
