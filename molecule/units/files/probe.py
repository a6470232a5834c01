#!/usr/bin/python3
"""Tells what a process sees of itself, to whoever listens; then does what its first argument says, or waits for ever."""

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import sys
import time

NAME = "\0kvstrata-probe"
FOLDERS = ("/", "/etc", "/usr", "/boot", "/var", "/var/lib", "/opt", "/home", "/root", "/run", "/tmp", "/var/tmp", "/dev/shm", "/srv")
FIELDS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "SigBlk", "SigIgn", "Cpus_allowed_list", "Mems_allowed_list")


def attempt(what):
    try:
        return what()
    except OSError as error:
        return f"errno {error.errno}"


def entry(path):
    status = os.stat(path)
    return [oct(status.st_mode), status.st_uid, status.st_gid]


def read(path):
    with open(path, "rb") as stream:
        return stream.read()


def folder(path):
    return {"read_only": bool(os.statvfs(path).f_flag & os.ST_RDONLY), "writable": os.access(path, os.W_OK, effective_ids=True)}


def credentials():
    base = os.environ.get("CREDENTIALS_DIRECTORY")
    return {name: attempt(lambda: read(f"{base}/{name}").decode()) for name in sorted(os.listdir(base))} if base else None


def tell():
    raw = read("/proc/self/environ").decode(errors="surrogateescape").split("\0")[:-1]
    environ = dict(word.split("=", 1) for word in raw)
    mask = os.umask(0)
    os.umask(mask)
    status = dict(line.split(":", 1) for line in read("/proc/self/status").decode().splitlines())
    own = [path for name in environ if name.endswith("_DIRECTORY") and name != "CREDENTIALS_DIRECTORY" for path in environ[name].split(":")]
    return {
        "argv": read("/proc/self/cmdline").decode().split("\0")[:-1],
        "environment": environ,
        "pid": os.getpid(),
        "cwd": os.getcwd(),
        "users": os.getresuid(),
        "groups": [os.getresgid(), sorted(os.getgroups())],
        "umask": oct(mask),
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")},
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "oom_score_adj": read("/proc/self/oom_score_adj").decode().strip(),
        "io_priority": ctypes.CDLL(None).syscall(252 if os.uname().machine == "x86_64" else 31, 1, 0),
        "status": {name: status[name].strip() for name in FIELDS},
        "memory_policy": attempt(lambda: read("/proc/self/numa_maps").decode().split("\n")[0].split()[1]),
        "session": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
        "input": os.readlink("/proc/self/fd/0"),
        "credentials": credentials(),
        "folders": {path: attempt(lambda path=path: folder(path)) for path in FOLDERS},
        "own_folders": {path: [attempt(lambda path=path: entry(path)), attempt(lambda path=path: folder(path))] for path in own},
        "tmp": sorted(os.listdir("/tmp")),
        "root_home": attempt(lambda: sorted(os.listdir("/root"))),
        "write": attempt(lambda: os.close(os.open("/tmp/of-the-probe", os.O_CREAT | os.O_WRONLY))),
    }


def send(what):
    with contextlib.suppress(ConnectionRefusedError), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(NAME)
        connection.sendall(json.dumps(what).encode())


def main():
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb == "deaf":
        # With a child that hears nothing either.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = os.fork() or 0
        send({"verb": verb, "pid": os.getpid(), "child": child}) if child else None
        time.sleep(600)
    if verb == "ready":
        send({"verb": verb, "at": time.monotonic(), "socket": "NOTIFY_SOCKET" in os.environ})
        time.sleep(float(sys.argv[2]))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            address = os.environ["NOTIFY_SOCKET"]
            notify.sendto(b"READY=1\n", "\0" + address[1:] if address.startswith("@") else address)
        time.sleep(600)
    if verb == "exit":
        send({"verb": verb, "word": sys.argv[3:], "at": time.monotonic()})
        sys.exit(int(sys.argv[2]))
    send(tell())
    time.sleep(600)


main()
