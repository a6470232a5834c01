"""The node containers: how one is started, seen and removed."""

import hashlib
import json
import resource
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kvstrata.lab import shell
from kvstrata.lab.errors import LabError
from kvstrata.lab.releases import RELEASES
from kvstrata.lab.spec import LabSpec

LAB_LABEL = "kvstrata.lab"
NODE_LABEL = "kvstrata.node"
DEVICES_LABEL = "kvstrata.devices"
RECIPE_LABEL = "kvstrata.recipe"

# Real nodes allow about this many; a container cannot have more than the process that starts it.
_NOFILE = 1048576
# podman lowers its own hard limit of processes, and without CAP_SYS_RESOURCE there is no way back up.
_NPROC = 32768
# Dropped from ALL: these reach through the container to the machine itself.
_DROPPED = ("SYS_MODULE", "SYS_TIME", "SYS_RAWIO", "SYSLOG", "WAKE_ALARM", "MAC_ADMIN", "MAC_OVERRIDE")
# vLLM and LMCache pass KV blocks through shared memory.
SHM_GIB = 4


@dataclass(frozen=True)
class Host:
    """What of this machine shapes a node: cgroups, the hard limits, whether it has disks of major 259."""

    cgroup_v2: bool
    nofile: int
    nproc: int
    memlock: int
    has_259_disks: bool


def _hard(kind: int, ceiling: int) -> int:
    """Return the hard limit, at most `ceiling`; -1 (unlimited) counts as more than any."""
    hard = resource.getrlimit(kind)[1]
    return ceiling if hard == resource.RLIM_INFINITY else min(hard, ceiling)


def real_259_disks(proc_partitions: str) -> bool:
    """Say whether /proc/partitions lists block devices of major 259 other than partitions of loop devices.

    Real NVMe drives have that major too: a node must not be allowed to open those.
    """
    rows = [line.split() for line in proc_partitions.splitlines()[1:] if line.strip()]
    return any(row[0] == "259" and not row[3].startswith("loop") for row in rows)


def this_host() -> Host:
    """Look at this machine."""
    memlock = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    return Host(
        cgroup_v2=Path("/sys/fs/cgroup/cgroup.controllers").exists(),
        nofile=_hard(resource.RLIMIT_NOFILE, _NOFILE),
        nproc=_hard(resource.RLIMIT_NPROC, _NPROC),
        memlock=-1 if memlock == resource.RLIM_INFINITY else memlock,
        has_259_disks=real_259_disks(Path("/proc/partitions").read_text()),
    )


@dataclass(frozen=True)
class Mounts:
    """Folders and files of the controller that a node sees read-only; `release` is podman's volume of one, or None."""

    models: Path
    public_key: Path
    user: str = "root"
    release: str | None = None


def run_argv(spec: LabSpec, node: str, image: str, devices: tuple[str, ...], mounts: Mounts, host: Host) -> list[str]:
    """Return the `podman run` that starts the node.

    Not --privileged, which would show it the host's disks. podman keeps /proc/sys read-only as long as it is
    not unmasked, so no node can change the host's sysctls; /sys/dev/block is what lsblk and mkfs read.
    """
    argv = ["podman"]
    if not host.cgroup_v2:
        argv += ["--runtime", "runc"]
    argv += ["run", "--detach", "--name", spec.container(node), "--hostname", node]
    argv += ["--network", spec.network, "--ip", str(spec.address(node)), "--mac-address", spec.mac(node)]
    for other in spec.possible_nodes:
        if other != node:
            argv += ["--add-host", f"{other}:{spec.address(other)}"]
    # Always restarted, for a reboot inside the node ends its PID 1.
    argv += ["--restart", "always", "--stop-signal", "SIGRTMIN+3", "--cgroupns", "private"]
    argv += ["--systemd", "always"] if host.cgroup_v2 else ["--systemd", "false", "--env", "container=podman"]
    argv += ["--tmpfs", "/run:rw,size=512m,mode=755", "--tmpfs", "/run/lock:rw,size=16m"]
    argv += ["--tmpfs", "/tmp:rw,size=2g,mode=1777", "--shm-size", f"{SHM_GIB}g"]  # noqa: S108 - in the node
    argv += ["--cap-add", "ALL"]
    for capability in _DROPPED:
        argv += ["--cap-drop", capability]
    for option in ("seccomp=unconfined", "apparmor=unconfined", "label=disable", "unmask=/sys/dev/block"):
        argv += ["--security-opt", option]
    argv += ["--ulimit", f"nofile={host.nofile}:{host.nofile}", "--ulimit", f"nproc={host.nproc}:{host.nproc}"]
    argv += ["--ulimit", f"memlock={host.memlock}:{host.memlock}"]
    if not host.has_259_disks:
        argv += ["--device-cgroup-rule", "b 259:* rwm"]
    if spec.memory_gib is not None:
        argv += ["--memory", f"{spec.memory_gib}g"]
    argv += ["--volume", f"{mounts.models}:/srv/models:ro"]
    argv += ["--volume", f"{mounts.public_key}:/etc/ssh/authorized_keys.d/{mounts.user}:ro"]
    if mounts.release is not None:
        argv += ["--volume", mounts.release]
    argv += ["--log-driver", "k8s-file", "--pull", "never"]
    argv += ["--label", f"{LAB_LABEL}={spec.name}", "--label", f"{NODE_LABEL}={node}"]
    command = [image, "/usr/local/sbin/lab-init"]
    # Which loop devices they are is no part of the recipe: that may change when a node starts again.
    recipe = hashlib.sha256(json.dumps([argv, len(devices), command]).encode()).hexdigest()[:12]
    argv += ["--label", f"{RECIPE_LABEL}={recipe}", "--label", f"{DEVICES_LABEL}={','.join(devices)}"]
    for index, device in enumerate(devices):
        argv += ["--device", f"{device}:/dev/nvme{index}n1:rwm"]
    return argv + command


def recipe_of(argv: Iterable[str]) -> str:
    """Return the recipe digest that a `podman run` of ours puts on its container."""
    prefix = f"{RECIPE_LABEL}="
    return next(word.removeprefix(prefix) for word in argv if word.startswith(prefix))


@dataclass(frozen=True)
class Container:
    """A node container as podman sees it; `devices` are the loop devices it was made with.

    `shares_release` says whether it has, or builds, a release that other labs' nodes may have too.
    """

    lab: str
    node: str
    name: str
    running: bool
    devices: tuple[str, ...]
    recipe: str
    shares_release: bool = False


def parse_ps(text: str) -> list[Container]:
    """Read `podman ps --all --format json`, keeping the containers of labs."""
    found = []
    for entry in json.loads(text or "[]"):
        labels = entry.get("Labels") or {}
        if LAB_LABEL in labels:
            devices = labels.get(DEVICES_LABEL, "")
            found.append(
                Container(
                    lab=labels[LAB_LABEL],
                    node=labels[NODE_LABEL],
                    name=entry["Names"][0],
                    running=entry["State"] == "running",
                    devices=tuple(devices.split(",")) if devices else (),
                    recipe=labels.get(RECIPE_LABEL, ""),
                    shares_release=any(path.startswith(f"{RELEASES}/") for path in entry.get("Mounts") or ()),
                )
            )
    return sorted(found, key=lambda container: container.name)


def containers(lab: str | None = None) -> list[Container]:
    """Return the node containers of one lab, or of all labs."""
    argv = ["podman", "ps", "--all", "--format", "json", "--filter", f"label={LAB_LABEL}"]
    return [c for c in parse_ps(shell.run(argv)) if lab in (None, c.lab)]


def others_running() -> list[str]:
    """Return the names of running containers that are of no lab."""
    entries = json.loads(shell.run(("podman", "ps", "--format", "json")) or "[]")
    return [entry["Names"][0] for entry in entries if LAB_LABEL not in (entry.get("Labels") or {})]


def create(argv: Iterable[str]) -> None:
    """Start a new node with the command line of `run_argv`."""
    shell.run(tuple(argv))


def start(container: str) -> None:
    """Start a stopped node."""
    shell.run(("podman", "start", container))


def remove(container: str) -> None:
    """Stop the node and remove it, whatever its state."""
    shell.run(("podman", "rm", "--force", "--time", "5", "--ignore", container))


def system_state(container: str) -> str:
    """Wait for the node's boot to end and return systemd's word for how it went, such as `running`."""
    try:
        return shell.run(("podman", "exec", container, "systemctl", "is-system-running", "--wait")).strip()
    except shell.CommandError as error:
        failed = shell.run(
            ("podman", "exec", container, "systemctl", "list-units", "--failed", "--plain", "--no-legend")
        )
        units = " ".join(line.split()[0] for line in failed.splitlines() if line.strip())
        return f"not running properly ({units or error.output.strip() or 'no failed unit'})"


def check_sysctls_are_shielded(container: str) -> None:
    """Raise LabError when the node can write a sysctl of the whole machine (it writes back what is there)."""
    probe = "set -e; value=$(cat /proc/sys/vm/swappiness); echo $value >/proc/sys/vm/swappiness"
    if shell.succeeds(("podman", "exec", container, "sh", "-c", probe)):
        raise LabError(
            f"{container} can write /proc/sys/vm, so it could change this machine's sysctls; "
            "the lab refuses to run it like that"
        )
