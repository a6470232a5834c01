"""store.py HOST PORT set|get: keep a value in a store, or print the one kept there; the password comes by stdin."""

import socket
import sys

VALUE = b"kept through a reboot"
host, port, command = sys.argv[1:]
password = sys.stdin.readline().strip().encode()


def ask(stream, *words):
    """Return the answer to a command; end with the error if it is one."""
    stream.write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
    stream.flush()
    reply = stream.readline().strip()
    if reply.startswith(b"-"):
        sys.exit(reply.decode())
    return stream.read(int(reply[1:]) + 2)[:-2] if reply.startswith(b"$") and reply != b"$-1" else reply


with socket.create_connection((host, int(port)), timeout=30) as connection, connection.makefile("rwb") as stream:
    ask(stream, b"AUTH", password)
    print((ask(stream, b"SET", b"k", VALUE) if command == "set" else ask(stream, b"GET", b"k")).decode())
    print("kvrocks" if b"kvrocks_version" in ask(stream, b"INFO", b"server") else "redis-server")
