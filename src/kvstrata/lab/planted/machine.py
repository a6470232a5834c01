"""Faults of the machine: its drives, its network, its clock. Each is taken away by its other half."""

from __future__ import annotations

import json
from pathlib import Path

from kvstrata.lab import drives, paths, shell
from kvstrata.lab.errors import LabError
from kvstrata.lab.planted.services import written
from kvstrata.lab.planted.site import Node, Site
from kvstrata.paths import PROJECT

DRIVE = "/var/lib/kvstrata/drives/d0"
_DRIVE_GIB = 4
_MARK = ("-m", "comment", "--comment", "kvstrata-planted")
_LOSS = 0.05
_SKEW_S = 30
_CLOCK_MARK = "kvstrata-planted"
# Before /usr/bin in the PATH of what is run over SSH.
_DATE = "/usr/local/bin/date"
_FACT = "/etc/ansible/facts.d/kvstrata_drives.fact"
_THROTTLED_SHARE = 0.05


def mount_another_drive(site: Site) -> None:
    """Mount another drive where node2's d0 belongs, and start its store there."""
    node = site.node("node2")
    image = _image(site)
    drives.ensure_image(image, _DRIVE_GIB)
    shell.run(("mkfs.xfs", "-q", "-f", str(image)))
    device = drives.attach(image)
    number = Path("/sys/block", Path(device).name, "dev").read_text().strip().replace(":", " ")
    node.run("systemctl stop kvrocks@d0.service")
    # From outside: the node itself may open no device but its own.
    node.within("mount", "sh", "-c", f"mknod /dev/planted b {number} && mount -t xfs /dev/planted {DRIVE}")
    node.run("systemctl start kvrocks@d0.service")


def unmount_it(site: Site) -> None:
    """Leave d0 its own drive."""
    node = site.node("node2")
    node.run(
        f"if grep -q '^/dev/planted {DRIVE} ' /proc/mounts; then\n"
        f"systemctl stop kvrocks@d0.service; umount {DRIVE}\nfi\n"
        # Also where the planting ended half way, with the store stopped.
        "rm -f /dev/planted; systemctl start kvrocks@d0.service"
    )
    drives.detach([loop for loop in drives.attached() if loop.image == _image(site)])
    _image(site).unlink(missing_ok=True)


def _image(site: Site) -> Path:
    # Among the drives' images, where `lab down` looks.
    return paths.lab_dir(site.spec.name) / "drives" / "planted.img"


def refuse_the_cache(site: Site) -> None:
    """Close the way to node1's d0 for node2's cache daemon alone."""
    node, store = site.node("node2"), site.node("node1").address
    user = node.run("id -u kvstrata").strip()
    rule = ["-p", "tcp", "-d", store, "--dport", "6666", "-m", "owner", "--uid-owner", user]
    node.within("net", "iptables", "-I", "OUTPUT", *rule, *_MARK, "-j", "REJECT", "--reject-with", "tcp-reset")


def let_the_cache(site: Site) -> None:
    """Open it again."""
    _delete_rules(site.node("node2"))


def drop_packets(site: Site) -> None:
    """Lose some packets on the way from node1 to node2."""
    node, other = site.node("node2"), site.node("node1").address
    lossy = ["-m", "statistic", "--mode", "random", "--probability", str(_LOSS)]
    node.within("net", "iptables", "-I", "INPUT", "-s", other, *lossy, *_MARK, "-j", "DROP")


def let_packets(site: Site) -> None:
    """Lose none."""
    _delete_rules(site.node("node2"))


def _delete_rules(node: Node) -> None:
    for line in node.within("net", "iptables", "-S").splitlines():
        if "kvstrata-planted" in line:
            node.within("net", "iptables", "-D", *line.split()[1:])


def throttle(site: Site) -> None:
    """Record what d0 of node2 reads, then let it read a twentieth of that."""
    node = site.node("node2")
    argv = ["ansible-playbook", str(PROJECT / "playbooks" / "hosts.yml"), f"--inventory={site.inventory}"]
    argv += ["--limit=node2", "--tags=nvme", "--extra-vars=nvme_baseline=always"]
    shell.run(("env", f"ANSIBLE_CONFIG={PROJECT / 'ansible.cfg'}", *argv), timeout_s=600)
    fact = json.loads(node.run(f"cat {_FACT}"))
    recorded = float(fact["drives"]["d0"]["baseline"]["seq_1m"]["mb_per_s"])
    _limit_reads(node, round(recorded * 1e6 * _THROTTLED_SHARE))


def unthrottle(site: Site) -> None:
    """Let it read as fast as it can, and forget the baseline."""
    node = site.node("node2")
    _limit_reads(node, 0)
    node.run(f"rm -f {_FACT}")


def _limit_reads(node: Node, bytes_per_s: int) -> None:
    """Bound what the node reads from its first drive; 0 is no bound (Documentation/.../cgroup-v1/blkio-controller)."""
    device = Path("/sys/block", Path(node.devices[0]).name, "dev").read_text().strip()
    groups = Path(f"/proc/{node.pid}/cgroup").read_text().splitlines()
    group = next((line.split(":", 2)[2] for line in groups if "blkio" in line.split(":")[1].split(",")), None)
    if group is None:
        raise LabError("this machine has no blkio controller of cgroup v1: drives cannot be throttled")
    limit = Path("/sys/fs/cgroup/blkio", group.strip("/"), "blkio.throttle.read_bps_device")
    limit.write_text(f"{device} {bytes_per_s}\n")


def fill_the_drive(site: Site) -> None:
    """Leave a hundredth of d0's file system on node2."""
    site.node("node2").run(
        f"set -- $(df --block-size=1M --output=size,avail {DRIVE} | tail -n 1)\n"
        f"fallocate --length $(($2 - $1 / 100))MiB {DRIVE}/planted"
    )


def empty_the_drive(site: Site) -> None:
    """Give the rest back."""
    site.node("node2").run(f"rm -f {DRIVE}/planted")


def skew_the_clock(site: Site) -> None:
    """Have `date` on node2 tell another time.

    Not the kernel's clock, which is this machine's, and not libfaketime for all that is run: sleeps fail under it.
    """
    wrapper = f"#!/bin/sh\n# {_CLOCK_MARK}\nexec /usr/bin/date --date='+{_SKEW_S} seconds' \"$@\"\n"
    site.node("node2").run(f"[ ! -e {_DATE} ]\n{written(_DATE, wrapper)}\nchmod 755 {_DATE}")


def right_the_clock(site: Site) -> None:
    """Have it tell the kernel's."""
    site.node("node2").run(f"if grep -q {_CLOCK_MARK} {_DATE} 2>/dev/null; then rm {_DATE}; fi")
