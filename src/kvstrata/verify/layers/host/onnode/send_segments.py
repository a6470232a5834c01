"""Send some MiB to a TCP port of another node, and print what the kernel counted on that very connection.

A store takes the bytes as commands of a client that has not given its password: it reads each, and answers that none
is allowed. So nothing is stored, and no password travels. The rate is bounded, so that what is lost was not lost to a
queue that this program filled; and packets go out by twos: where a virtual network drops what TCP hands down in one
piece, tens of packets at a time, few pieces would make the share a matter of luck.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import struct
import subprocess
import sys
import time
from pathlib import Path

# Redis takes no longer argument from a client without its password.
PAYLOAD = 16384
MESSAGES = 64
# Of linux/socket.h: TCP paces itself, without a queueing discipline.
SO_MAX_PACING_RATE = 47
# struct tcp_info of linux/tcp.h: offset and form of each counter; all are there since 4.19.
INFO = {
    "path_mtu": (60, "I"),
    "segment_bytes": (16, "I"),
    "round_trip_us": (68, "I"),
    "resent": (100, "I"),
    "segments": (156, "I"),
    "unacknowledged": (24, "I"),
    "unsent_bytes": (144, "I"),
    "arrived_twice": (216, "I"),
}


def counters(connection: socket.socket) -> dict[str, int]:
    """What the kernel counted so far."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
    return {
        name: struct.unpack_from("=" + form, info, offset)[0] if offset + 4 <= len(info) else 0
        for name, (offset, form) in INFO.items()
    }


def connected(host: str, port: int, until: float) -> socket.socket:
    """A connection; where nobody listens yet, it is tried again until then."""
    while True:
        try:
            return socket.create_connection((host, port), timeout=3)
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def send(connection: socket.socket, total: int, most_s: float) -> None:
    """Send `total` bytes and read what is answered, until all has arrived or `most_s` seconds are over."""
    message = b"*2\r\n$4\r\nPING\r\n$%d\r\n" % PAYLOAD + b"k" * PAYLOAD + b"\r\n"
    # Sent again and again, from where the last piece ended.
    data = memoryview(message * MESSAGES)
    connection.setblocking(False)
    piece = min(2 * counters(connection)["segment_bytes"], 1 << 16)
    # The kernel puts nothing more into a piece that ends a record. TLS makes pieces of its own.
    flags = 0 if isinstance(connection, ssl.SSLSocket) else socket.MSG_EOR
    sent, deadline = 0, time.monotonic() + most_s
    while time.monotonic() < deadline:
        ready, writable, _ = select.select([connection], [connection] if sent < total else [], [], 0.05)
        try:
            if ready and not connection.recv(1 << 16):
                return
            if writable:
                start = sent % len(data)
                sent += connection.send(data[start : start + piece], flags)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            continue
        except OSError:
            return
        seen = counters(connection) if sent >= total else {}
        if seen and not seen["unacknowledged"] and not seen["unsent_bytes"]:
            return


def interface(address: str) -> dict[str, object]:
    """The interface that has an address, and its MTU; nothing where that cannot be told."""
    done = subprocess.run(["ip", "-o", "address"], capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        words = line.split()
        if len(words) > 3 and words[3].partition("/")[0] == address:
            return {"name": words[1], "mtu": int(Path("/sys/class/net", words[1], "mtu").read_text())}
    return {}


def pinged(host: str, packet_bytes: int) -> object:
    """How many of four unfragmented packets of that size were answered; null where there is no ping."""
    # The headers of IP and ICMP count.
    payload = packet_bytes - (48 if ":" in host else 28)
    argv = ["ping", "-q", "-c", "4", "-i", "0.2", "-W", "1", "-M", "do", "-s", str(payload), host]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=8)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.replace(",", "").split()
    return int(words[words.index("received") - 1]) if "received" in words else None


def main() -> None:
    """Do what the argument says."""
    asked = json.loads(sys.argv[1])
    began = time.monotonic()
    try:
        plain = connected(asked["host"], asked["port"], began + asked["wait_s"])
        plain.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, asked["bytes_per_s"])
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = plain
        if asked["tls"]:
            # Whose the certificate is matters to the checks of the store: here only its packets count.
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = context.wrap_socket(plain)
    except OSError as error:
        print(json.dumps({"error": error.strerror or str(error)}))
        return
    started = time.monotonic()
    send(connection, asked["bytes"], asked["most_s"])
    seconds = time.monotonic() - started
    found: dict[str, object] = {**counters(connection), "seconds": round(seconds, 3)}
    address, peer = connection.getsockname()[0], connection.getpeername()[0] if _is_open(connection) else asked["host"]
    link = interface(address)
    found |= {"interface": link.get("name"), "mtu": link.get("mtu"), "pings_small": None, "pings_full": None}
    if isinstance(mtu := link.get("mtu"), int) and asked["ping"]:
        found["pings_full"] = pinged(peer, mtu)
        if found["pings_full"] == 0:
            found["pings_small"] = pinged(peer, 128)
    print(json.dumps(found))


def _is_open(connection: socket.socket) -> bool:
    try:
        connection.getpeername()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
