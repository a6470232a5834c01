#!/usr/bin/python
"""Look at a host without changing anything: system, memory, CPUs, addresses, paths, listening ports."""

from __future__ import annotations

import glob
import json
import os
import re
import socket
import struct

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: kvstrata_probe
short_description: Look at a host without changing anything
description: Reads /proc and /sys. What is seen is judged on the controller; kvstrata_drive_guard looks at drives.
options:
  paths: {description: Paths to look at., type: list, elements: str, default: []}
  ports: {description: TCP ports whose listeners to name., type: list, elements: int, default: []}
  texts: {description: Small files whose text to return., type: list, elements: str, default: []}
"""

TCP_LISTEN = "0A"
MOST_TEXT = 1 << 20


def read(path: str) -> str:
    """Return a file's text, or nothing where it cannot be read (a process that just ended)."""
    try:
        with open(path) as stream:
            return stream.read()
    except OSError:
        return ""


def os_release() -> dict[str, str]:
    """Return ID and VERSION_ID of /etc/os-release."""
    pairs = dict(line.split("=", 1) for line in read("/etc/os-release").splitlines() if "=" in line)
    return {key.lower(): pairs.get(key, "").strip('"') for key in ("ID", "VERSION_ID")}


def pythons() -> dict[str, str]:
    """Return the host's Python 3 interpreters, as {"3.11": "/usr/bin/python3.11"}."""
    found: dict[str, str] = {}
    for folder in ("/usr/local/bin", "/usr/bin"):
        for path in glob.glob(f"{folder}/python3.*"):
            match = re.fullmatch(r"python(3\.\d+)", os.path.basename(path))
            if match:
                found[match.group(1)] = path
    return found


def memory() -> int:
    """Return the bytes of memory that processes here may take: the host's, or a container's limit where it is less."""
    total = re.search(r"^MemTotal: +(\d+) kB", read("/proc/meminfo"), re.MULTILINE)
    found = [int(total.group(1)) * 1024] if total else []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = read(path).strip()
        if limit.isdigit():
            found.append(int(limit))
    return min(found)


def text(path: str) -> str:
    """Return the beginning of a text file; nothing where it cannot be read, or is no text."""
    try:
        return read(path)[:MOST_TEXT]
    except UnicodeDecodeError:
        return ""


def gpus() -> list[str]:
    """Return the models of the GPUs that NVIDIA's driver runs, as it names them."""
    found = []
    for path in sorted(glob.glob("/proc/driver/nvidia/gpus/*/information")):
        match = re.search(r"^Model:\s*(.+?)\s*$", read(path), re.MULTILINE)
        found += [match.group(1)] if match else []
    return found


def numa_nodes() -> list[int]:
    """Return the NUMA nodes of the host."""
    return sorted(
        int(re.sub(r"\D", "", os.path.basename(path))) for path in glob.glob("/sys/devices/system/node/node*")
    )


def addresses(module: AnsibleModule) -> list[str]:
    """Return the IPv4 and IPv6 addresses of all interfaces."""
    _, out, _ = module.run_command(["ip", "-json", "address"], check_rc=True)
    return [info["local"] for link in json.loads(out) for info in link.get("addr_info", [])]


def path_status(path: str) -> dict[str, bool]:
    """Return whether a path exists and whether it is a directory."""
    return {"exists": os.path.exists(path), "directory": os.path.isdir(path)}


def listening_inodes(ports: list[int]) -> dict[str, tuple[int, str]]:
    """Return socket inode -> (port, address) of every TCP listener on one of the ports."""
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in read(table).splitlines()[1:]:
            fields = line.split()
            host, port = fields[1].split(":")
            if fields[3] == TCP_LISTEN and int(port, 16) in ports:
                found[fields[9]] = (int(port, 16), readable_address(host))
    return found


def readable_address(host: str) -> str:
    """Return the address that /proc/net/tcp gives in words of native byte order."""
    words = [struct.pack("=I", int(host[i : i + 8], 16)) for i in range(0, len(host), 8)]
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, b"".join(words))


def unit_of(pid: str) -> str:
    """Return the systemd service that a process belongs to, or nothing."""
    match = re.search(r"/([^/\n]+\.service)(?:/|$)", read(f"/proc/{pid}/cgroup"), re.MULTILINE)
    return match.group(1) if match else ""


def listeners(ports: list[int]) -> dict[str, list[dict[str, str]]]:
    """Return for each port who listens there: process, unit, address."""
    users: dict[str, list[dict[str, str]]] = {str(port): [] for port in ports}
    wanted = listening_inodes(ports)
    named: set[str] = set()
    for link in glob.glob("/proc/[0-9]*/fd/*") if wanted else []:
        try:
            inode = os.readlink(link)[len("socket:[") : -1]
        except OSError:
            continue
        if inode in wanted:
            port, address = wanted[inode]
            pid = link.split("/")[2]
            entry = {"process": read(f"/proc/{pid}/comm").strip(), "unit": unit_of(pid), "address": address}
            named.add(inode)
            if entry not in users[str(port)]:
                users[str(port)].append(entry)
    # The kernel's own listeners, and those of another PID namespace, have no process here; their port is taken too.
    for inode in wanted.keys() - named:
        port, address = wanted[inode]
        users[str(port)].append({"process": "a process not visible here", "unit": "", "address": address})
    return users


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "str", "default": []},
            "ports": {"type": "list", "elements": "int", "default": []},
            "texts": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    module.exit_json(
        changed=False,
        gpus=gpus(),
        texts={path: text(path) for path in module.params["texts"]},
        os=os_release(),
        pythons=pythons(),
        memory=memory(),
        cpus=read("/sys/devices/system/cpu/online").strip(),
        numa_nodes=numa_nodes(),
        addresses=addresses(module),
        paths={path: path_status(path) for path in module.params["paths"]},
        ports=listeners(module.params["ports"]),
    )


if __name__ == "__main__":
    main()
