"""The disk that machines boot: Debian with its own kernel, initramfs and boot loader, built once per recipe.

The boot loader reads kernel and initramfs from the disk at every boot, as a real machine does: what a role put into
the initramfs, or forgot to, shows at the next reboot.
"""

import hashlib
import shutil
import struct
import tempfile
from pathlib import Path

from kvstrata.lab import image, paths, shell
from kvstrata.lab.image import File
from kvstrata.lab.progress import Step, step

SUITE = "bookworm"
DISK_BYTES = 8 * 2**30
# Where the only partition begins, in sectors of 512 bytes; the boot loader lies before it.
FIRST_SECTOR = 2048
PACKAGES = (
    *image.PACKAGES,
    *("linux-image-cloud-amd64", "initramfs-tools", "zstd", "grub-pc-bin", "grub-common"),
    *("busybox", "mdadm", "lvm2", "cryptsetup-bin", "fio"),
    # What the role `host` installs: emulated, that alone takes a minute. Container nodes show that it does.
    *("chrony", "irqbalance"),
)
# Units that only cost time, or change something by themselves, in a machine that lives for minutes.
MASKED = (
    *("systemd-firstboot.service", "getty.target", "nvmf-autoconnect.service", "mdmonitor.service"),
    *("mdcheck_start.timer", "mdcheck_continue.timer", "mdmonitor-oneshot.timer", "e2scrub_reap.service"),
    *("e2scrub_all.timer", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer"),
    *("systemd-networkd-wait-online.service", "lvm2-monitor.service"),
)
# `nvme`: arrays are put together by the initramfs already, as on a server with an initramfs of every driver.
_INITRAMFS_MODULES = "virtio_pci\nvirtio_blk\nvirtio_net\next4\nnvme\n"
# Nothing is chosen and nothing awaited. Emulated CPUs need no mitigations, and their clock is never the best.
_GRUB = """\
linux /vmlinuz root=LABEL=root ro rootfstype=ext4 console=ttyS0 quiet mitigations=off nokaslr nowatchdog \
tsc=reliable random.trust_cpu=on net.ifnames=0 systemd.show_status=0
initrd /initrd.img
boot
"""
_NETWORK = "[Match]\nName=e*\n[Network]\nDHCP=ipv4\n"
# Machines started from one snapshot share clock, random numbers, machine-id, host keys and name until this has run.
_IDENTITY = """\
#!/bin/sh
# lab-identity NAME SECONDS SEED: become NAME at SECONDS since 1970; print the public host key.
set -e
date --set "@$2" >/dev/null
# New keys would be those of the next machine as well, were the random numbers not stirred at once.
python3 -c 'import fcntl, sys
random = open("/dev/urandom", "wb", buffering=0)
random.write(bytes.fromhex(sys.argv[1]))
fcntl.ioctl(random, 0x5207)  # RNDRESEEDCRNG' "$3"
hostname "$1"
echo "$1" >/etc/hostname
printf '127.0.0.1 localhost %s\\n' "$1" >/etc/hosts
rm -f /etc/machine-id /etc/ssh/ssh_host_*
systemd-machine-id-setup 2>/dev/null
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
systemctl reload ssh.service
cat /etc/ssh/ssh_host_ed25519_key.pub
"""
_FEATURES = (
    # Spelled out, because this machine's mkfs may know features that the image's boot loader does not.
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,"
    "huge_file,dir_nlink,extra_isize,metadata_csum"
)


def mkfs_argv(root: Path, disk: Path) -> list[str]:
    """Return the command that makes the file system of `disk`'s partition, with everything of `root` in it."""
    offset = FIRST_SECTOR * 512
    options = f"offset={offset},lazy_itable_init=0,lazy_journal_init=0"
    argv = ["mkfs.ext4", "-q", "-F", "-L", "root", "-O", _FEATURES, "-E", options, "-d", str(root), str(disk)]
    return [*argv, f"{(DISK_BYTES - offset) // 1024}k"]


class VmRecipe(image.Recipe):
    """Everything that decides what is on the disk; another recipe is another disk."""

    def digest(self) -> str:
        """Return the first 12 hex digits of a SHA-256 over the recipe and how the disk is made of it."""
        everything = [super().digest(), *mkfs_argv(Path("root"), Path("disk"))]
        return hashlib.sha256("\0".join(everything).encode()).hexdigest()[:12]

    def build_argv(self, scratch: Path) -> list[str]:
        """Return the mmdebstrap command that makes the folder `scratch`/root of node.sources and overlay.tar there."""
        grub = "grub-mkimage -O i386-pc -o /boot/grub/core.img -p '(,msdos1)/boot/grub'"
        return [
            *self.bootstrap_argv(),
            # Before the kernel is installed, whose initramfs is made by these files.
            f"--essential-hook=tar-in {scratch}/overlay.tar /",
            '--customize-hook=chroot "$1" update-ca-certificates',
            f'--customize-hook=chroot "$1" systemctl mask {" ".join(self.masked)}',
            '--customize-hook=chroot "$1" systemctl enable ssh.service systemd-networkd.service',
            '--customize-hook=chroot "$1" systemctl disable chrony.service irqbalance.service',
            f'--customize-hook=chroot "$1" {grub} biosdisk part_msdos ext2 normal linux configfile minicmd',
            '--customize-hook=rm -f "$1"/etc/resolv.conf; echo nameserver 10.0.2.3 >"$1"/etc/resolv.conf',
            '--customize-hook=: >"$1"/etc/machine-id',
            "--format=directory",
            *(self.suite, f"{scratch}/root", f"{scratch}/node.sources"),
        ]

    @property
    def folder(self) -> Path:
        """Where the disk and what was made of it are kept."""
        return paths.images_dir() / f"vm-{self.suite}-{self.digest()}"

    @property
    def disk(self) -> Path:
        """The disk: raw, sparse, never written again once it is there."""
        return self.folder / "disk.img"


def host_recipe(login_key: str, host_key: str) -> VmRecipe:
    """Return the recipe for this machine: its mirror, proxies and CA certificates, as for the lab's nodes.

    `login_key` is the public key admitted as root; `host_key` the private key that sshd has until a machine gets its
    own. Both are the lab's, and reach nothing but ports of 127.0.0.1.
    """
    like = image.host_recipe(SUITE)
    node_only = {"usr/local/sbin/lab-init"}
    files = [file for file in like.files if file.path not in node_only]
    files += [
        File("etc/ssh/authorized_keys.d/root", login_key),
        File("etc/ssh/ssh_host_ed25519_key", host_key, 0o600),
        File("etc/fstab", "LABEL=root / ext4 noatime,errors=remount-ro 0 1\n"),
        File("etc/hostname", "vm\n"),
        File("etc/hosts", "127.0.0.1 localhost vm\n"),
        File("etc/systemd/network/10-lab.network", _NETWORK),
        File("etc/initramfs-tools/conf.d/lab", "MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=1\n"),
        File("usr/share/initramfs-tools/modules.d/lab", _INITRAMFS_MODULES),
        File("boot/grub/grub.cfg", _GRUB),
        File("usr/local/sbin/lab-identity", _IDENTITY, 0o755),
    ]
    return VmRecipe(SUITE, PACKAGES, MASKED, like.sources, like.apt_options, tuple(files))


def boot_sectors(boot: bytes, core: bytes, disk_bytes: int) -> bytes:
    """Return what lies before the partition: GRUB's boot.img with a partition table in it, and its core.img.

    boot.img loads the sector after it, and core.img, as grub-mkimage leaves it, the sectors that follow.
    ValueError when core.img does not fit.
    """
    if len(core) > (FIRST_SECTOR - 1) * 512:
        raise ValueError(f"core.img has {len(core)} bytes; allowed are {(FIRST_SECTOR - 1) * 512}")
    sectors = disk_bytes // 512 - FIRST_SECTOR
    # Active, no CHS addresses, Linux, and where it lies.
    partition = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", FIRST_SECTOR, sectors)
    first = boot[:440] + b"KVS\0\0\0" + partition + bytes(48) + b"\x55\xaa"
    return first + core


def _make_disk(root: Path, disk: Path) -> None:
    modules = root / "usr/lib/grub/i386-pc"
    before = boot_sectors((modules / "boot.img").read_bytes(), (root / "boot/grub/core.img").read_bytes(), DISK_BYTES)
    with disk.open("xb") as file:
        file.truncate(DISK_BYTES)
        file.write(before)
    shell.run(mkfs_argv(root, disk), timeout_s=600)


def _build(recipe: VmRecipe, current: Step) -> None:
    paths.images_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=paths.images_dir(), prefix=".build-vm-") as scratch_name:
        scratch = Path(scratch_name)
        # mmdebstrap checks out as another user while it downloads.
        scratch.chmod(0o755)
        image.write_overlay(recipe, scratch / "overlay.tar")
        (scratch / "node.sources").write_text(recipe.sources)

        def say(line: str) -> None:
            if line.startswith(("I: ", "W: ", "E: ")):
                current.note(line[3:])

        shell.stream(recipe.build_argv(scratch), say, {"DEBIAN_FRONTEND": "noninteractive"})
        made = scratch / "made"
        made.mkdir()
        current.note("writing the disk")
        _make_disk(scratch / "root", made / "disk.img")
        made.rename(recipe.folder)


def ensure(recipe: VmRecipe) -> None:
    """Build the disk unless it is there; disks of earlier recipes are removed."""
    with step("machine image") as current:
        if recipe.disk.exists():
            current.result = f"cached ({recipe.folder.name})"
            return
        current.note(f"building {recipe.folder.name} with mmdebstrap; this is done once")
        _build(recipe, current)
        current.result = f"built ({recipe.folder.name}, {recipe.disk.stat().st_blocks * 512 / 2**20:.0f} MiB)"


def remove_others(recipe: VmRecipe) -> None:
    """Remove the disks of earlier recipes; only when no machine runs, for one may have its disk over them."""
    for folder in paths.images_dir().glob(f"vm-{recipe.suite}-*"):
        if folder != recipe.folder:
            shutil.rmtree(folder)
