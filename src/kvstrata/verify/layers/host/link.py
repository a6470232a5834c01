"""Whether the link from another node loses packets, and carries packets of one size.

Measured is real traffic: some MiB from the peer to this node, to the port of a store, so that it takes the way that
chunks take. What was sent again is counted by the kernel for that very connection; other traffic cannot blame the link.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from kvstrata.verify.check import Check, Json, NotCheckedError, UnableError, UnmetError
from kvstrata.verify.context import NodeContext, Peer
from kvstrata.verify.layers.host import onnode
from kvstrata.verify.layers.host.onnode import send_segments, take_segments
from kvstrata.verify.layers.host.survey import Survey
from kvstrata.verify.shell import CommandTimeoutError, Shell

SEND_BYTES = 8 << 20
# Half a second for all of it: packets in small bursts, so that the loss of one is the loss of few.
BYTES_PER_S = 16_000_000
MOST_S = 5.0
WAIT_S = 3.0
# Fewer segments tell nothing, unless most of them were lost.
LEAST_SEGMENTS = 200
LEAST_RESENT = 3
# An IPv4 packet is no longer, whatever the loopback's MTU.
LARGEST_PACKET = 65535
# Above what the kernel gives to connections by itself (net.ipv4.ip_local_port_range).
PORTS = range(61000, 65000)


@dataclass(frozen=True)
class Sent:
    """What the peer's kernel counted. `lost` are segments sent again, less those that had arrived after all."""

    segments: int
    lost: int
    round_trip_s: float
    segment_bytes: int
    path_mtu: int
    mtu: int | None
    interface: str | None
    pings_full: int | None
    pings_small: int | None
    seconds: float

    @property
    def share(self) -> float:
        """Of the segments sent, those lost."""
        return self.lost / max(1, self.segments)


def sent(found: dict[str, Any]) -> Sent:
    """What the program on the peer printed."""
    return Sent(
        segments=found["segments"],
        lost=max(0, found["resent"] - found["arrived_twice"]),
        round_trip_s=found["round_trip_us"] / 1e6,
        segment_bytes=found["segment_bytes"],
        path_mtu=found["path_mtu"],
        mtu=found["mtu"],
        interface=found["interface"],
        pings_full=found["pings_full"],
        pings_small=found["pings_small"],
        seconds=found["seconds"],
    )


def mtu_of(survey: Survey, address: str) -> tuple[str, int] | None:
    """The interface that has an address, and its MTU; None where none has it."""
    name, mtus = "", {}
    for line in survey.part("addresses").splitlines():
        words = line.split()
        if words[:1] == ["mtu"] and len(words) == 3:
            mtus[words[1]] = int(words[2])
        elif len(words) > 3 and words[3].partition("/")[0] == address:
            name = words[1]
    return (name, mtus[name]) if name in mtus else None


def checks(ctx: NodeContext, survey: Survey) -> Iterator[Check]:
    """The link from the peer; a site of one node has none."""
    peer = ctx.peer
    if peer is None:
        if len(ctx.cluster.nodes) > 1:
            yield ctx.question("host.link", "link from another node", "measured", ctx.command("ss -ti")).skip(
                "that the link to this node loses nothing: no other node under verification answered"
            )
        return
    most = ctx.cluster.verify.limits.retransmit_share
    measured = _Measured(ctx, peer)
    data: dict[str, Json] = {}
    yield ctx.question(
        "host.link",
        f"link from {peer.node.name}",
        f"at most {most:g} of the TCP segments lost",
        ctx.command("ip -s link"),
    ).ask(partial(_loss, measured, most, data), data)
    sizes: dict[str, Json] = {}
    yield ctx.question(
        "host.link",
        f"packet size of the link from {peer.node.name}",
        "the same MTU at both ends, and packets of that size arrive",
        ctx.command("ip link"),
    ).ask(partial(_size, measured, survey, ctx.node.fabric_host, sizes), sizes)


class _Measured:
    """The traffic is sent once, when it is first asked for."""

    def __init__(self, ctx: NodeContext, peer: Peer) -> None:
        self._ctx, self._peer = ctx, peer
        self._outcome: Sent | NotCheckedError | UnableError | None = None

    def outcome(self) -> Sent:
        """What was counted; NotCheckedError where nothing could be sent."""
        if self._outcome is None:
            try:
                self._outcome = self._send()
            except (NotCheckedError, UnableError) as error:
                self._outcome = error
        if isinstance(self._outcome, Sent):
            return self._outcome
        raise self._outcome

    def _send(self) -> Sent:
        host, stores = self._ctx.node.fabric_host, self._ctx.node.stores
        if stores:
            store = stores[0]
            found = self._ask(store.host, store.tls_port or store.port, tls=store.tls_port is not None)
            way = f"{store.drive} {store.address}, see store.fabric"
        else:
            port = random.choice(PORTS)  # noqa: S311 - a port, no secret
            taken: dict[str, Json] = {"host": host, "port": port, "wait_s": 3 * WAIT_S, "most_s": MOST_S}
            limit = 4 * WAIT_S + MOST_S
            listener = threading.Thread(target=_quiet, args=(self._ctx.shell, taken, limit), daemon=True)
            listener.start()
            found = self._ask(host, port)
            listener.join(limit)
            way = f"{host}:{port}, opened for this"
        if error := found.get("error"):
            raise NotCheckedError(f"that the link loses nothing: no connection to {way} ({error})")
        return sent(found)

    def _ask(self, host: str, port: int, tls: bool = False) -> dict[str, Any]:
        asked: dict[str, Json] = {
            "host": host,
            "port": port,
            "tls": tls,
            "bytes": SEND_BYTES,
            "bytes_per_s": BYTES_PER_S,
            "most_s": MOST_S,
            "wait_s": WAIT_S,
            "ping": True,
        }
        limit = min(self._ctx.timeout_s, 40.0)
        try:
            done = self._peer.shell.run(onnode.command(send_segments, asked), limit)
        except CommandTimeoutError:
            # Its own message would hold the whole program.
            raise UnableError(f"{self._peer.node.name} did not end sending within {limit:g} s") from None
        if done.exit_code != 0:
            raise UnableError(f"{self._peer.node.name} exited {done.exit_code}, said: {done.stderr.strip()[-200:]}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def _quiet(shell: Shell, asked: dict[str, Json], limit: float) -> None:
    # Why it could not listen is told by the sender, which finds nobody there.
    try:
        shell.run(onnode.command(take_segments, asked), limit)
    except UnableError:
        return


def _loss(measured: _Measured, most: float, data: dict[str, Json]) -> str:
    found = measured.outcome()
    data |= {
        "segments": found.segments,
        "lost": found.lost,
        "share": round(found.share, 5),
        "round_trip_s": round(found.round_trip_s, 6),
        "seconds": found.seconds,
    }
    seen = f"{found.lost} of {found.segments} segments lost ({found.share:.2%}) in {found.seconds:.1f} s"
    if found.share > most and found.lost >= LEAST_RESENT:
        raise UnmetError(f"{seen}, {found.round_trip_s * 1000:.1f} ms there and back")
    if found.segments < LEAST_SEGMENTS:
        raise UnableError(f"{seen}: too few to tell")
    return seen


def _size(measured: _Measured, survey: Survey, address: str, data: dict[str, Json]) -> str:
    found = measured.outcome()
    here = mtu_of(survey, address)
    data |= {"mtu": here[1] if here else None, "peer_mtu": found.mtu, "segment_bytes": found.segment_bytes}
    if here is None or found.mtu is None:
        raise NotCheckedError(f"that both ends have one MTU: no interface has the address {address}, or the peer's")
    if here[1] != found.mtu:
        raise UnmetError(f"{here[1]} here ({here[0]}), {found.mtu} there ({found.interface})")
    if found.path_mtu < min(found.mtu, LARGEST_PACKET):
        raise UnmetError(f"{found.mtu} at both ends, and no more than {found.path_mtu} on the way")
    if found.pings_full == 0 and found.pings_small:
        raise UnmetError(f"{found.mtu} at both ends, and no packet of that size arrives; small ones do")
    proof = (
        f"{found.pings_full} of 4 pings of that size"
        if found.pings_full
        else f"segments of {found.segment_bytes} bytes"
    )
    return f"{found.mtu} at both ends; {proof} arrived"
