"""The node image: a Debian root file system with systemd and sshd, built once per recipe."""

import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from kvstrata.lab import aptsources, paths, shell
from kvstrata.lab.progress import Step, step

PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "udev", "kmod", "libpam-systemd", "openssh-server"),
    *("python3", "python3-apt", "python3-venv", "sudo", "ca-certificates", "curl", "rsync"),
    *("iproute2", "iputils-ping", "procps", "parted", "gdisk", "xfsprogs", "e2fsprogs", "util-linux"),
    *("nvme-cli", "pciutils", "libgomp1", "libnuma1", "numactl"),
)
# Units that fail or only make noise in a container.
MASKED = (
    *("systemd-firstboot.service", "getty.target", "console-getty.service", "systemd-udevd.service"),
    *("systemd-udevd-control.socket", "systemd-udevd-kernel.socket", "systemd-udev-trigger.service"),
    *("nvmf-autoconnect.service", "e2scrub_reap.service", "e2scrub_all.timer", "fstrim.timer"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer"),
)
# What a container manager leaves to be done before systemd starts.
_INIT = """\
#!/bin/sh
# cgroup v1: podman mounts the hierarchies read-only, and systemd then neither makes cgroups nor enforces
# MemoryMax. The container's own cgroup namespace keeps this inside the node.
if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
  for hierarchy in /sys/fs/cgroup/*/; do
    mount -o remount,bind,rw,nosuid,nodev,noexec "$hierarchy"
  done
fi
# systemd hands credentials to services through mounts that must reach the service's own mount namespace.
mount --make-rshared /
# Without udev nobody names the drives by id; /dev is new at every boot.
mkdir -p /dev/disk/by-id
for drive in /dev/nvme*n1; do
  if [ -b "$drive" ]; then
    index=${drive#/dev/nvme}
    ln -sf "../../${drive#/dev/}" "/dev/disk/by-id/nvme-lab-$(uname -n)-${index%n1}"
  fi
done
exec /sbin/init
"""
# Host keys are made at the first boot, so that no two nodes share one; RSA would cost seconds.
_SSH_UNIT = """\
[Service]
ExecStartPre=
ExecStartPre=/bin/sh -c 'test -s /etc/ssh/ssh_host_ed25519_key || ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key'
ExecStartPre=/usr/sbin/sshd -t
"""  # noqa: E501 - one line of a unit file
# The lab's key is mounted below authorized_keys.d when a node starts; the image itself admits nobody.
_SSHD_CONFIG = """\
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/authorized_keys.d/%u
PasswordAuthentication no
UseDNS no
MaxStartups 100
MaxSessions 100
"""
_LOOPBACK = re.compile(r"//([^@/]*@)?(localhost|127\.|\[::1\])")


@dataclass(frozen=True)
class File:
    """A file put into the image."""

    path: str
    content: str
    mode: int = 0o644


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is in the image; another recipe is another image."""

    suite: str
    packages: tuple[str, ...]
    masked: tuple[str, ...]
    sources: str
    apt_options: tuple[str, ...]
    files: tuple[File, ...]

    def digest(self) -> str:
        """Return the first 12 hex digits of the recipe's SHA-256."""
        # How it is built counts as well; where it is built does not.
        everything = [asdict(self), self.build_argv(Path("/scratch"))]
        return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:12]

    def tag(self) -> str:
        """Return the image's name in podman."""
        return f"localhost/kvstrata-node:{self.suite}-{self.digest()}"

    def bootstrap_argv(self) -> list[str]:
        """Return the beginning of an mmdebstrap command: the packages, how they are fetched and what stays out."""
        argv = ["mmdebstrap", "--mode=root", "--variant=apt", f"--include={','.join(self.packages)}"]
        # The package lists stay: a node's first apt-get update then fetches only what is new.
        argv.append("--skip=cleanup/apt/lists")
        argv += ['--aptopt=Apt::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"']
        argv += [f"--aptopt={line}" for line in self.apt_options]
        return argv + [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale")]

    def build_argv(self, scratch: Path) -> list[str]:
        """Return the mmdebstrap command that makes `scratch`/node.tar of node.sources and overlay.tar there."""
        return [
            *self.bootstrap_argv(),
            f"--customize-hook=tar-in {scratch}/overlay.tar /",
            '--customize-hook=chroot "$1" update-ca-certificates',
            f'--customize-hook=chroot "$1" systemctl mask {" ".join(self.masked)}',
            '--customize-hook=chroot "$1" systemctl enable ssh.service',
            '--customize-hook=rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/resolv.conf; : >"$1"/etc/machine-id',
            *(self.suite, f"{scratch}/node.tar", f"{scratch}/node.sources"),
        ]


def proxy_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the proxy variables that also hold inside a node: not those that name the host's loopback."""
    found = {}
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        value = environ.get(name) or environ.get(name.upper())
        if value and not _LOOPBACK.search(value):
            found[name] = value
    return found


def make_recipe(
    suite: str,
    sources: str,
    apt_options: tuple[str, ...],
    proxies: Mapping[str, str],
    extra_files: tuple[File, ...],
) -> Recipe:
    """Combine the image's fixed parts with what this host needs to reach its mirrors."""
    apt = list(apt_options)
    apt += [
        f'Acquire::{name.removesuffix("_proxy")}::Proxy "{value}";'
        for name, value in proxies.items()
        if name != "no_proxy"
    ]
    files = [
        File("usr/local/sbin/lab-init", _INIT, 0o755),
        File("etc/systemd/system/ssh.service.d/10-lab.conf", _SSH_UNIT),
        File("etc/ssh/sshd_config.d/10-lab.conf", _SSHD_CONFIG),
        File("etc/environment", "".join(f"{name}={value}\n" for name, value in proxies.items())),
        *extra_files,
    ]
    return Recipe(suite, PACKAGES, MASKED, sources, tuple(apt), tuple(files))


def host_recipe(suite: str) -> Recipe:
    """Return the recipe for this machine: its mirror, its proxies, its extra CA certificates."""
    sources = aptsources.for_suite(aptsources.host_stanzas(), suite)
    certificates = sorted(Path("/usr/local/share/ca-certificates").rglob("*.crt"))
    extra = [File(str(path).lstrip("/"), path.read_text(errors="replace")) for path in certificates]
    return make_recipe(suite, sources, aptsources.host_transport_options(), proxy_settings(os.environ), tuple(extra))


def write_overlay(recipe: Recipe, path: Path) -> None:
    """Write the recipe's files, and the keys that its sources name, as a tar file."""
    keyrings = set(re.findall(r"^Signed-By: (/\S+)", recipe.sources, re.MULTILINE)) - {aptsources.KEYRING}
    contents = {file.path: (file.content.encode(), file.mode) for file in recipe.files}
    contents |= {name.lstrip("/"): (Path(name).read_bytes(), 0o644) for name in keyrings}
    with tarfile.open(path, "w") as tar:
        for name, (content, mode) in sorted(contents.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))


def _build(recipe: Recipe, target: Path, current: Step) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as scratch_name:
        scratch = Path(scratch_name)
        # mmdebstrap checks out as another user while it downloads.
        scratch.chmod(0o755)
        write_overlay(recipe, scratch / "overlay.tar")
        (scratch / "node.sources").write_text(recipe.sources)

        def say(line: str) -> None:
            if line.startswith(("I: ", "W: ", "E: ")):
                current.note(line[3:])

        shell.stream(recipe.build_argv(scratch), say, {"DEBIAN_FRONTEND": "noninteractive"})
        (scratch / "node.tar").replace(target)


def ensure(recipe: Recipe) -> str:
    """Build and import the image unless podman has it, and return its name."""
    tag = recipe.tag()
    with step("image") as current:
        if shell.succeeds(("podman", "image", "exists", tag)):
            current.result = f"cached ({tag})"
            return tag
        archive = paths.images_dir() / f"node-{recipe.suite}-{recipe.digest()}.tar"
        if not archive.exists():
            current.note(f"building {tag} with mmdebstrap; this is done once")
            _build(recipe, archive, current)
        current.note(f"importing {archive.stat().st_size / 2**20:.0f} MiB into podman")
        shell.run(("podman", "import", "--quiet", str(archive), tag), timeout_s=600)
        _remove_others(recipe)
        current.result = f"built ({tag})"
    return tag


def _remove_others(recipe: Recipe) -> None:
    """Remove archives and images of earlier recipes of the suite; images in use stay until the next time."""
    for archive in paths.images_dir().glob(f"node-{recipe.suite}-*.tar"):
        if recipe.digest() not in archive.name:
            archive.unlink()
    repository, suite = recipe.tag().split(":")[0], f":{recipe.suite}-"
    listed = shell.run(("podman", "images", "--format", "{{.Repository}}:{{.Tag}}")).split()
    for image in listed:
        if image.startswith(repository + suite) and image != recipe.tag():
            shell.succeeds(("podman", "rmi", image))
