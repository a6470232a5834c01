"""Print, as JSON, what a reboot must not change about drives and stores, asked of the kernel and of the tools."""

import json
import re
import subprocess
from pathlib import Path

MOUNTS = "/var/lib/kvstrata/drives/"
LIMITS = re.compile(r"^(Max open files|Max locked memory) +(\S+) +(\S+)", re.MULTILINE)


def run(*argv):
    """Return what the command prints."""
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def read(path):
    """Return a file's text."""
    return Path(path).read_text().strip()


def drive(kernel):
    """Return how the kernel and the controller say that the namespace is set."""
    queue = f"/sys/block/{kernel}/queue"
    return {
        "sector": int(read(f"{queue}/logical_block_size")),
        "id_ns": [line for line in run("nvme", "id-ns", "-H", f"/dev/{kernel}").splitlines() if "(in use)" in line],
        "scheduler": read(f"{queue}/scheduler"),
        "readahead_kib": int(read(f"{queue}/read_ahead_kb")),
    }


def mount(seen):
    """Return what is mounted, without the kernel's name of it, and whether its unit names it by UUID."""
    unit = run("systemd-escape", "--path", "--suffix=mount", seen["target"]).strip()
    named = re.findall(r"^What=(.*)$", run("systemctl", "cat", unit), re.MULTILINE)
    return {
        "fstype": seen["fstype"],
        "options": seen["options"],
        "uuid": seen["uuid"],
        "label": run("blkid", "--match-tag", "LABEL", "--output", "value", seen["source"]).strip(),
        "by_uuid": named == [f"/dev/disk/by-uuid/{seen['uuid']}"],
    }


def mounts():
    """Return what is mounted for kvstrata, by the drive's name in the inventory."""
    columns = "TARGET,FSTYPE,OPTIONS,UUID,SOURCE"
    listed = json.loads(run("findmnt", "--json", "--list", "--types", "xfs,ext4", "--output", columns))
    ours = [seen for seen in listed["filesystems"] if seen["target"].startswith(MOUNTS)]
    return {seen["target"].removeprefix(MOUNTS): mount(seen) for seen in ours}


def arrays():
    """Return the arrays by the names that they have below /dev/md."""
    found = {}
    for path in sorted(Path("/dev/md").glob("*")):
        detail = run("mdadm", "--detail", "--export", str(path))
        fields = dict(line.split("=", 1) for line in detail.splitlines() if "=" in line)
        found[path.name] = {"level": fields["MD_LEVEL"], "devices": fields["MD_DEVICES"], "uuid": fields["MD_UUID"]}
    return found


def limits(unit):
    """Return the soft and hard limits that the kernel gave the unit's main process."""
    pid = run("systemctl", "show", "--property=MainPID", "--value", unit).strip()
    return {name: [soft, hard] for name, soft, hard in LIMITS.findall(read(f"/proc/{pid}/limits"))}


def units(pattern):
    """Return the names of the units that run and fit the pattern."""
    listed = run("systemctl", "list-units", "--plain", "--no-legend", "--state=active", pattern)
    return sorted(line.split()[0] for line in listed.splitlines())


controllers = {read(path): path.parent.name for path in Path("/sys/class/nvme").glob("nvme*/serial")}
facts = {path.name: json.loads(read(path)) for path in Path("/etc/ansible/facts.d").glob("*.fact")}
state = {
    "drives": {serial: drive(f"{controller}n1") for serial, controller in sorted(controllers.items())},
    "mounts": mounts(),
    "arrays": arrays(),
    "stores": {unit: limits(unit) for unit in units("kvrocks@*.service")},
    "trim": units("kvstrata-fstrim@*.timer"),
    "facts": facts,
}
print(json.dumps(state))
