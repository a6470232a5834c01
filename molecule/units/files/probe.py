#!/usr/bin/python3
"""Tells what a process sees of itself to whoever listens; then does what its first argument says, or waits for ever."""

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path

NAME = "\0kvstrata-probe"
TEMPORARY = "/tmp"  # noqa: S108 - what PrivateTmp= is about
FOLDERS = ("/", "/etc", "/usr", "/boot", "/var", "/var/lib", "/opt", "/home", "/root", "/run", "/srv", TEMPORARY)
FIELDS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "SigBlk", "SigIgn", "Cpus_allowed_list")
IOPRIO_GET = {"x86_64": 252, "aarch64": 31}


def attempt(what, *arguments):
    """Return what a call returns, or which error it ends with."""
    try:
        return what(*arguments)
    except OSError as error:
        return f"errno {error.errno}"


def entry(path):
    """Return mode, user and group."""
    status = Path(path).stat()
    return [oct(status.st_mode), status.st_uid, status.st_gid]


def read(path):
    """Return the text of a file."""
    return Path(path).read_text(errors="surrogateescape")


def names(path):
    """Return what is in a folder."""
    return sorted(each.name for each in Path(path).iterdir())


def folder(path):
    """Return whether a folder's file system is read-only, and whether this user may write there."""
    read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    return {"read_only": read_only, "writable": os.access(path, os.W_OK, effective_ids=True)}


def credentials(environ):
    """Return the credentials by name, None where there are none."""
    base = environ.get("CREDENTIALS_DIRECTORY")
    return {name: attempt(read, f"{base}/{name}") for name in names(base)} if base else None


def tell():
    """Return everything."""
    environ = dict(word.split("=", 1) for word in read("/proc/self/environ").split("\0")[:-1])
    mask = os.umask(0)
    os.umask(mask)
    status = dict(line.split(":", 1) for line in read("/proc/self/status").splitlines())
    lists = [environ[name] for name in environ if name.endswith("_DIRECTORY") and name != "CREDENTIALS_DIRECTORY"]
    own = [path for paths in lists for path in paths.split(":")]
    limits = {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")}
    return {
        "argv": read("/proc/self/cmdline").split("\0")[:-1],
        "environment": environ,
        "pid": os.getpid(),
        "cwd": str(Path.cwd()),
        "users": os.getresuid(),
        "groups": [os.getresgid(), sorted(os.getgroups())],
        "umask": oct(mask),
        "limits": limits,
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "oom_score_adj": read("/proc/self/oom_score_adj").strip(),
        "io_priority": ctypes.CDLL(None).syscall(IOPRIO_GET[os.uname().machine], 1, 0),
        "status": {name: status[name].strip() for name in FIELDS},
        "memory_policy": attempt(lambda: read("/proc/self/numa_maps").split("\n")[0].split()[1]),
        "session": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
        "input": str(Path("/proc/self/fd/0").readlink()),
        "credentials": credentials(environ),
        "folders": {path: attempt(folder, path) for path in FOLDERS},
        "own_folders": {path: [attempt(entry, path), attempt(folder, path)] for path in own},
        "tmp_is_empty": not names(TEMPORARY),
        "root_home": attempt(names, "/root"),
        "write": [attempt(Path(TEMPORARY, "of-the-probe").touch), attempt(Path(TEMPORARY, "of-the-probe").unlink)],
    }


def send(what):
    """Tell it, if anybody listens."""
    with contextlib.suppress(ConnectionRefusedError), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(NAME)
        connection.sendall(json.dumps(what).encode())


def main():
    """Do what the first argument says."""
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb == "deaf":
        # With a child that hears nothing either.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if child := os.fork():
            send({"verb": verb, "pid": os.getpid(), "child": child})
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
