"""The link between two nodes: what the sender counted, and what the program that sends really does."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from kvstrata.verify.check import Check, Status
from kvstrata.verify.layers import host
from kvstrata.verify.layers.host import link, onnode
from kvstrata.verify.layers.host.onnode import send_segments, take_segments
from kvstrata.verify.shell import CommandTimeoutError
from tests.verify.fakes.host import SEND_SEGMENTS, TAKE_SEGMENTS
from tests.verify.fakes.resp import RespServer
from tests.verify.fakes.shell import closed_port
from tests.verify.fakes.site import Site


def ask(site: Site, alone: bool = False) -> list[Check]:
    return [check for check in host.checks(site.context(alone=alone)) if check.id == "host.link"]


def asked(site: Site) -> dict[str, Any]:
    """What the peer's program was told."""
    (line,) = (line for line in site.nodes["node2"].shell.ran if line.startswith(SEND_SEGMENTS))
    found: dict[str, Any] = json.loads(line[len(SEND_SEGMENTS) :])
    return found


def test_the_peer_sends_to_the_store_and_gives_no_password(site: Site) -> None:
    loss, size = ask(site)
    assert loss.what == "link from node2"
    assert (loss.status, loss.seen) == (Status.PASS, "0 of 938 segments lost (0.00%) in 0.5 s")
    assert loss.data["share"] == 0
    assert (size.status, size.seen) == (Status.PASS, "9000 at both ends; 4 of 4 pings of that size arrived")
    told = asked(site)
    assert (told["host"], told["port"], told["tls"]) == ("10.9.0.11", 6666, False)
    assert "secret-pw" not in json.dumps(told)


def test_the_port_with_tls_is_taken_where_there_is_one(site: Site) -> None:
    site.document["nodes"][0]["stores"][0] |= {"tls_port": 6667, "tls_ca": "/etc/ca.pem"}
    ask(site)
    assert (asked(site)["port"], asked(site)["tls"]) == (6667, True)


def test_the_inventory_says_how_much_may_be_lost(site: Site) -> None:
    site.nodes["node2"].host.lost = 12
    assert ask(site)[0].status is Status.FAIL
    site.document["verify"]["limits"] = {"retransmit_share": 0.05}
    assert ask(site)[0].status is Status.PASS


def test_what_arrived_twice_was_not_lost(site: Site) -> None:
    site.nodes["node2"].host.segments = {"resent": 40, "arrived_twice": 39}
    assert ask(site)[0].seen.startswith("1 of 938 segments lost")


def test_a_link_that_lets_hardly_anything_through_fails(site: Site) -> None:
    site.nodes["node2"].host.segments = {"segments": 30, "resent": 12}
    assert ask(site)[0].status is Status.FAIL
    site.nodes["node2"].host.segments = {"segments": 30, "resent": 1}
    check = ask(site)[0]
    assert check.status is Status.ERROR
    assert "too few to tell" in check.seen


@pytest.mark.parametrize(
    ("segments", "seen"),
    [
        ({"mtu": 1500, "path_mtu": 1500}, "9000 here (eth0), 1500 there (eth0)"),
        ({"path_mtu": 1500}, "9000 at both ends, and no more than 1500 on the way"),
        ({"pings_full": 0, "pings_small": 4}, "9000 at both ends, and no packet of that size arrives; small ones do"),
    ],
)
def test_packets_that_do_not_fit_fail_apart_from_loss(site: Site, segments: dict[str, Any], seen: str) -> None:
    site.nodes["node2"].host.segments = segments
    loss, size = ask(site)
    assert loss.status is Status.PASS
    assert (size.status, size.seen) == (Status.FAIL, seen)


@pytest.mark.parametrize(("full", "small"), [(None, None), (0, 0)])
def test_where_nothing_answers_a_ping_the_segments_are_the_proof(
    site: Site, full: int | None, small: int | None
) -> None:
    site.nodes["node2"].host.segments = {"pings_full": full, "pings_small": small}
    assert ask(site)[1].seen == "9000 at both ends; segments of 8948 bytes arrived"


def test_an_address_of_no_interface_proves_nothing_of_packet_sizes(site: Site) -> None:
    site.nodes["node1"].host.parts["addresses"] = "2: eth0    inet 192.168.0.1/24\nmtu eth0 1500"
    assert ask(site)[1].status is Status.SKIP


def test_a_store_out_of_reach_is_not_blamed_on_the_link(site: Site) -> None:
    site.nodes["node2"].shell.answers[SEND_SEGMENTS] = '{"error": "Connection refused"}'
    loss, size = ask(site)
    assert loss.status is size.status is Status.SKIP
    assert "no connection to d0 10.9.0.11:6666, see store.fabric (Connection refused)" in loss.seen
    assert len(site.nodes["node2"].shell.ran) == 1


def test_a_program_that_hangs_or_breaks_is_an_error(site: Site) -> None:
    def hang(argv: Sequence[str]) -> str:
        raise CommandTimeoutError("did not end")

    site.nodes["node2"].shell.answers[SEND_SEGMENTS] = hang
    assert ask(site)[0].seen == "could not check: node2 did not end sending within 5 s"
    del site.nodes["node2"].shell.answers[SEND_SEGMENTS]
    site.nodes["node2"].shell.answers["python3"] = ""
    site.nodes["node2"].shell.exits["python3"] = 1
    assert ask(site)[0].status is Status.ERROR


def test_a_node_without_a_store_opens_a_port_for_it(site: Site) -> None:
    site.document["nodes"][0]["stores"] = []
    assert ask(site)[0].status is Status.PASS
    assert asked(site)["port"] in link.PORTS
    (line,) = (line for line in site.nodes["node1"].shell.ran if line.startswith(TAKE_SEGMENTS))
    assert json.loads(line[len(TAKE_SEGMENTS) :])["port"] == asked(site)["port"]


def test_a_node_that_is_left_alone_says_so_and_a_site_of_one_has_no_link(site: Site) -> None:
    (check,) = ask(site, alone=True)
    assert check.status is Status.SKIP
    del site.document["nodes"][1]
    assert ask(site, alone=True) == []


# -- the programs that travel ----------------------------------------------------------------------


def run(program: Any, argument: dict[str, Any]) -> dict[str, Any]:
    argv = onnode.command(program, argument)
    done = subprocess.run([sys.executable, *argv[1:]], capture_output=True, text=True, check=True, timeout=60)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def told(port: int, **changes: Any) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": port,
        "tls": False,
        "bytes": 1 << 20,
        "bytes_per_s": 16_000_000,
        "most_s": 5.0,
        "wait_s": 0.2,
        "ping": False,
    } | changes


def test_the_sender_counts_its_own_segments_and_leaves_nothing_in_the_store(resp_server: RespServer) -> None:
    found = link.sent(run(send_segments, told(resp_server.port)))
    assert found.segments >= (1 << 20) // 65536
    assert (found.lost, found.interface) == (0, "lo")
    assert found.path_mtu == min(found.mtu or 0, link.LARGEST_PACKET)
    assert resp_server.data == {}


def test_the_sender_says_why_it_could_not() -> None:
    assert run(send_segments, told(closed_port())) == {"error": "Connection refused"}


def test_the_sender_ends_in_time_where_nobody_reads() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        found = run(send_segments, told(port, bytes=64 << 20, bytes_per_s=1 << 30, most_s=0.5))
    # No buffer takes all of it: it was the time that ended it, and what was counted is still told.
    assert found["seconds"] >= 0.5
    assert found["segments"] > 0


def test_what_is_sent_is_taken_where_there_is_no_store() -> None:
    port = closed_port()
    taken: list[dict[str, Any]] = []
    argument = {"host": "127.0.0.1", "port": port, "wait_s": 10, "most_s": 10}
    listener = threading.Thread(target=lambda: taken.append(run(take_segments, argument)))
    listener.start()
    found = link.sent(run(send_segments, told(port, wait_s=10)))
    listener.join()
    assert found.segments > 0
    assert taken[0]["bytes"] >= 1 << 20
