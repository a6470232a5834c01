#!/usr/bin/python3
"""Build a signed APT repository of dummy packages with the names of NVIDIA's, and a tree that stands for two L40S.

Nothing of it drives a GPU: the "kernel module" writes its version into the tree, and a unit of this machine "loads" it
there when the machine starts.
"""

import os
import platform
import subprocess
from pathlib import Path

VERSIONS = ("580.95.05", "595.71.05")
REPOSITORY, TREE, WORK = Path("/srv/nvidia"), Path("/srv/gpu-tree"), Path("/srv/nvidia-work")
LIBRARY = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so."
GPUS = ("0000:01:00.0", "0000:02:00.0")
NVIDIA_SMI = """#!/bin/sh
loaded=$(cat {tree}/sys/module/nvidia/version)
if [ "$loaded" != "{version}" ]; then
  echo "Failed to initialize NVML: Driver/library version mismatch"
  exit 18
fi
echo '<?xml version="1.0" ?>'
echo "<nvidia_smi_log><driver_version>$loaded</driver_version>"
for gpu in {tree}/sys/bus/pci/devices/*; do
  if [ "$(cat $gpu/class)" = 0x030200 ]; then
    echo "<gpu id=\\"$(basename $gpu)\\"><product_name>NOT A REAL GPU</product_name></gpu>"
  fi
done
echo "</nvidia_smi_log>"
"""
MODULE_POSTINST = """#!/bin/sh
printf 'version:        {version}\\nlicense:        Dual MIT/GPL\\n' >{tree}/modinfo
"""
DAEMON = "[Service]\nExecStart=/bin/sleep infinity\n\n[Install]\nWantedBy=multi-user.target\n"
START = """#!/bin/sh
cd {tree}
cat /proc/sys/kernel/random/uuid >proc/sys/kernel/random/boot_id
echo started >>starts
if [ -e /etc/modprobe.d/kvstrata-nvidia.conf ]; then rm -rf sys/module/nouveau; fi
if [ -e modinfo ]; then
  version=$(sed -n 's/^version: *//p' modinfo)
  mkdir -p sys/module/nvidia proc/driver/nvidia
  echo "$version" >sys/module/nvidia/version
  echo "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  $version" >proc/driver/nvidia/version
fi
"""
# What a refusal must leave as it is, as one JSON object.
NODE_STATE = """#!/usr/bin/python3
import hashlib, json, pathlib, subprocess
command = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Abbrev}${Version}\\n"]
packages = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
tree = pathlib.Path("/srv/gpu-tree")
files = [
    "/etc/apt/sources.list.d/kvstrata-nvidia.sources",
    "/etc/apt/preferences.d/kvstrata-nvidia-driver",
    "/usr/share/keyrings/kvstrata-nvidia.asc",
    "/etc/modprobe.d/kvstrata-nvidia.conf",
]
print(json.dumps({
    "packages": [line for line in packages if "nvidia" in line and line.split()[1][1] == "i"],
    "loaded": (tree / "sys/module/nvidia/version").read_text().strip(),
    "starts": len((tree / "starts").read_text().split()),
    "files": {name: hashlib.sha256(pathlib.Path(name).read_bytes()).hexdigest() for name in files},
}))
"""
START_UNIT = """[Unit]
Before=ssh.service

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/gpu-tree-start

[Install]
WantedBy=multi-user.target
"""


def package(name, version, depends="", files=(), postinst=""):
    """Build one package; `files` are (path, content, mode)."""
    root = WORK / f"{name}_{version}"
    control = [f"Package: {name}", f"Version: {version}", "Architecture: all", "Maintainer: kvstrata's tests <none>"]
    control += [f"Depends: {depends}"] if depends else []
    write(root / "DEBIAN" / "control", "\n".join([*control, "Description: dummy of a test"]) + "\n")
    if postinst:
        write(root / "DEBIAN" / "postinst", postinst, 0o755)
    for path, content, mode in files:
        write(root / path.lstrip("/"), content, mode)
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, REPOSITORY], check=True)


def write(path, content, mode=0o644):
    """Write a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)


def driver(version):
    """Build what a driver of that version is made of."""
    exact = f"{version}-1"
    fields = {"version": version, "tree": TREE}
    package("nvidia-kernel-open-dkms", exact, postinst=MODULE_POSTINST.format(**fields))
    package("libnvidia-ml1", exact, files=[(LIBRARY + version, "", 0o644)])
    smi = ("/usr/bin/nvidia-smi", NVIDIA_SMI.format(**fields), 0o755)
    package("nvidia-driver-cuda", exact, f"libnvidia-ml1 (= {exact})", [smi])
    for name in ("nvidia-persistenced", "nvidia-fabricmanager"):
        package(name, exact, files=[(f"/usr/lib/systemd/system/{name}.service", DAEMON, 0o644)])


def output(*command):
    """Run a program in the repository and return what it prints."""
    return subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout


def sign():
    """Index the repository and sign it with a key that is thrown away with the node."""
    home = WORK / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", home, "--batch", "--yes"]
    output(*gpg, "--passphrase", "", "--quick-generate-key", "kvstrata test", "ed25519", "sign", "never")
    write(REPOSITORY / "key.asc", output(*gpg, "--armor", "--export"))
    write(REPOSITORY / "Packages", output("apt-ftparchive", "packages", "."))
    write(REPOSITORY / "Release", output("apt-ftparchive", "release", "."))
    output(*gpg, "--clearsign", "--output", "InRelease", "Release")


def tree():
    """Make the machine: two GPUs that nouveau holds."""
    for address in GPUS:
        folder = TREE / "sys/bus/pci/devices" / address
        for name, value in (("vendor", "0x10de"), ("device", "0x26b9"), ("class", "0x030200"), ("numa_node", "0")):
            write(folder / name, value + "\n")
    (TREE / "sys/module/nouveau").mkdir(parents=True)
    write(TREE / "proc/sys/kernel/random/boot_id", "the-first-one\n")
    write(Path("/usr/local/sbin/gpu-tree-start"), START.format(tree=TREE), 0o755)
    write(Path("/usr/local/sbin/node-state"), NODE_STATE, 0o755)
    write(Path("/etc/systemd/system/gpu-tree.service"), START_UNIT)
    subprocess.run(["systemctl", "enable", "gpu-tree.service"], check=True)


def main():
    """Make everything."""
    REPOSITORY.mkdir(parents=True)
    for version in VERSIONS:
        driver(version)
    package(f"linux-headers-{platform.uname().release}", "1.0-1")
    # It cannot be configured: what an interrupted installation leaves.
    package("kvstrata-broken", "1.0-1", postinst="#!/bin/sh\nexit 1\n")
    sign()
    tree()
    os.sync()


if __name__ == "__main__":
    main()
