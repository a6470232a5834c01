"""The probe's parsers: on a recorded tree, on composed ones, on what the programs print, and on this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kvstrata.driver.decide import decide
from kvstrata.driver.model import Probe
from kvstrata.paths import PROJECT
from tests.driver.probes import FIXTURES, seen, wanted
from tests.plugins.modules import run_module

sys.path.insert(0, str(PROJECT / "plugins" / "module_utils"))
import ansible.module_utils

ansible.module_utils.__path__.append(str(PROJECT / "plugins" / "module_utils"))
from ansible.module_utils import kvstrata_gpupackages as packages  # noqa: E402
from ansible.module_utils import kvstrata_gpuprobe as look  # noqa: E402

OPEN = """filename:       /lib/modules/6.8.0-87-generic/updates/dkms/nvidia.ko.zst
alias:          char-major-195-*
version:        580.95.05
supported:      external
license:        Dual MIT/GPL
firmware:       nvidia/580.95.05/gsp_tu10x.bin
srcversion:     C6D2C1F9C4F52C0A4D52A97
vermagic:       6.8.0-87-generic SMP preempt mod_unload modversions
sig_id:         PKCS#7
signer:         gpu1 Secure Boot Module Signature key
"""
PROPRIETARY = "version:        580.95.05\nlicense:        NVIDIA\n"


def host(root: Path, answers: dict[str, tuple[int, str]] | None = None) -> look.Host:
    """A node below `root`, on which only the programs of `answers` exist."""
    return look.Host(lambda command: (answers or {}).get(command[0], (127, "")), str(root))


def write(root: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def pci(root: Path, address: str, vendor: str, device: str, code: str, vpd: bytes = b"") -> None:
    folder = f"sys/bus/pci/devices/{address}"
    write(
        root, {f"{folder}/{name}": value for name, value in (("vendor", vendor), ("device", device), ("class", code))}
    )
    if vpd:
        write(root, {f"{folder}/vpd": vpd})


def test_the_recorded_machine_is_read_as_its_fixture_says() -> None:
    tree = host(FIXTURES / "trees" / "h100-vm")
    recorded = seen("h100-vm")
    # Which driver has a device is a link out of the tree, so it was not recorded with it.
    assert look.devices(tree) == [{**recorded["devices"][0], "driver": ""}]
    assert look.loaded(tree) == recorded["loaded"]
    assert look.os_release(tree) == recorded["os"]
    assert look.secure_boot(tree) == recorded["secure_boot"]
    assert look.kernel(tree, "6.18.44-fc-v657-gpu", "x86_64") == recorded["kernel"]


def test_the_bridge_of_nvlink_5_is_known_by_its_vpd(tmp_path: Path) -> None:
    pci(tmp_path, "0000:1b:00.0", "0x10de", "0x2901", "0x030200")
    pci(tmp_path, "0000:05:00.0", "0x15b3", "0x1021", "0x020700", b"\x82\x12\x00NVLink5 bridge\x90V3\x06SW_MNG")
    pci(tmp_path, "0000:a0:00.0", "0x15b3", "0x1021", "0x020700", b"\x82\x12\x00ConnectX-7")
    found = look.devices(host(tmp_path))
    assert [(d["address"], d["switch_management"]) for d in found] == [("0000:1b:00.0", False), ("0000:05:00.0", True)]


def test_no_vpd_is_read_where_there_is_no_gpu(tmp_path: Path) -> None:
    pci(tmp_path, "0000:05:00.0", "0x15b3", "0x1021", "0x020700", b"SW_MNG")
    assert look.devices(host(tmp_path)) == []


def test_modinfo_tells_open_modules_by_their_license() -> None:
    signer = "gpu1 Secure Boot Module Signature key"
    assert look.parse_modinfo(OPEN) == {"version": "580.95.05", "flavour": "open", "signer": signer}
    assert look.parse_modinfo(PROPRIETARY) == {"version": "580.95.05", "flavour": "proprietary", "signer": ""}
    assert look.parse_modinfo("modinfo: ERROR: Module nvidia not found.") is None
    assert look.installed(host(Path("/"), {"modinfo": (1, "modinfo: ERROR")}), "6.1") is None


@pytest.mark.parametrize(
    ("banner", "flavour"),
    [
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build", "open"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023", "proprietary"),
        ("", ""),
    ],
)
def test_the_banner_of_the_loaded_module_tells_its_flavour(banner: str, flavour: str) -> None:
    assert look.flavour_of_banner(banner) == flavour


@pytest.mark.parametrize(
    ("value", "said", "state"),
    [
        (b"\x06\x00\x00\x00\x01", "SecureBoot enabled", "on"),
        (b"\x06\x00\x00\x00\x00", "SecureBoot disabled", "off"),
        (b"\x06\x00\x00\x00\x01", "SecureBoot enabled\nSecureBoot validation is disabled in shim", "off"),
        (b"", "", "unsupported"),
    ],
)
def test_secure_boot_is_what_the_firmware_says_unless_the_shim_checks_nothing(
    tmp_path: Path, value: bytes, said: str, state: str
) -> None:
    if value:
        write(tmp_path, {look.SECURE_BOOT: value})
    assert look.secure_boot(host(tmp_path, {"mokutil": (0, said)}))["state"] == state


@pytest.mark.parametrize(
    ("key", "answer", "enrolled"),
    [
        ("", (0, ""), None),
        ("var/lib/dkms/mok.pub", (127, ""), None),
        ("var/lib/dkms/mok.pub", (0, "/var/lib/dkms/mok.pub is not enrolled"), False),
        ("var/lib/shim-signed/mok/MOK.der", (1, "MOK.der is already enrolled"), True),
    ],
)
def test_the_key_of_dkms_is_asked_for_where_secure_boot_is_on(
    tmp_path: Path, key: str, answer: tuple[int, str], enrolled: bool | None
) -> None:
    write(tmp_path, {look.SECURE_BOOT: b"\x06\x00\x00\x00\x01", **({key: "key"} if key else {})})
    assert look.secure_boot(host(tmp_path, {"mokutil": answer}))["mok_enrolled"] is enrolled


def test_containers_name_themselves(tmp_path: Path) -> None:
    assert look.container(host(tmp_path)) == ""
    write(tmp_path, {".dockerenv": ""})
    assert look.container(host(tmp_path)) == "docker"
    write(tmp_path, {"run/systemd/container": "podman\n"})
    assert look.container(host(tmp_path)) == "podman"


def test_the_library_has_the_version_in_its_name(tmp_path: Path) -> None:
    folder = "usr/lib/x86_64-linux-gnu"
    assert look.library(host(tmp_path)) == ""
    write(tmp_path, {f"{folder}/libnvidia-ml.so.1": "", f"{folder}/libnvidia-ml.so.580.95.05": ""})
    assert look.library(host(tmp_path)) == "580.95.05"


DPKG = (
    "dkms\tii \t3.0.10-8\n"
    "libnvidia-ml1\thi \t580.95.05-1\n"
    "mariadb-server\tiF \t1:10.11\n"
    "nvidia-settings\trc \t535.1\n"
    "nvidia-driver-cuda\tiU \t580.95.05-1\n"
    "perl\tiiR\t5.36\n"
    "man-db\titT\t2.11\n"
)


def test_dpkg_tells_installed_held_and_broken_packages() -> None:
    assert packages.parse_dpkg(DPKG) == {
        "dkms": {"version": "3.0.10-8", "held": False},
        "libnvidia-ml1": {"version": "580.95.05-1", "held": True},
    }
    assert packages.parse_broken(DPKG) == {
        "mariadb-server": "half-configured",
        "nvidia-driver-cuda": "unpacked, not configured",
        "perl": "needs to be installed again",
    }


def test_rpm_tells_versions_and_versionlock_the_holds() -> None:
    text = "nvidia-driver-cuda\t3:580.95.05-1.el9\nkernel-core\t0:5.14.0-570.39.1.el9_6\nbash\t0:5.1-9\n"
    lock = "# Added lock\nnvidia-driver-cuda-3:580.95.05-1.el9.*\nnvidia-driver-cuda-libs-3:580.95.05-1.el9.*\n"
    assert packages.parse_rpm(text, lock) == {
        "nvidia-driver-cuda": {"version": "3:580.95.05-1.el9", "held": True},
        "kernel-core": {"version": "5.14.0-570.39.1.el9_6", "held": False},
    }
    assert not packages.is_locked("nvidia-driver", lock)


def test_apt_tells_what_it_could_install() -> None:
    text = (
        "nvidia-driver-cuda | 590.48.01-1 | https://repo ./ Packages\n"
        "nvidia-driver-cuda | 580.95.05-1 | https://repo ./ Packages\n"
        "nvidia-driver-cuda | 580.95.05-1 | file:/srv ./ Packages\n"
    )
    assert packages.parse_madison(text, ["nvidia-driver-cuda", "nvlsm"]) == {
        "nvidia-driver-cuda": ["590.48.01-1", "580.95.05-1"],
        "nvlsm": [],
    }


def test_an_interrupted_dpkg_leaves_its_journal(tmp_path: Path) -> None:
    write(tmp_path, {"var/lib/dpkg/updates/tmp.i": ""})
    assert not packages.interrupted(host(tmp_path))
    write(tmp_path, {"var/lib/dpkg/updates/0003": "Package: x"})
    assert packages.interrupted(host(tmp_path))


HOLDER = """
import fcntl, sys
with open(sys.argv[1], "w") as stream:
    fcntl.lockf(stream, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_the_holder_of_a_lock_is_named_and_the_lock_left_alone(tmp_path: Path) -> None:
    name = "var/lib/dpkg/lock-frontend"
    write(tmp_path, {name: ""})
    assert packages.lock_holder(host(tmp_path), 0) is None
    command = [sys.executable, "-c", HOLDER, str(tmp_path / name)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        for _ in range(2):
            holder = packages.lock_holder(host(tmp_path), 0)
            assert holder is not None
            assert (holder["file"], holder["pid"]) == (f"/{name}", other.pid)
            assert holder["process"] == Path(f"/proc/{other.pid}/comm").read_text().strip()
        other.stdin.close()
        # Freed while it is waited for.
        assert packages.lock_holder(host(tmp_path), 30) is None


def test_what_an_earlier_run_left_is_read_and_nonsense_is_not(tmp_path: Path) -> None:
    assert packages.own(host(tmp_path)) is None
    write(tmp_path, {packages.OWN: '{"holds": ["a"], "version": "580.95.05"}'})
    assert packages.own(host(tmp_path)) == {"holds": ["a"], "version": "580.95.05"}
    for text in ("{", "[]", "{}"):
        write(tmp_path, {packages.OWN: text})
        assert packages.own(host(tmp_path)) is None


def test_the_enabled_stream_of_the_dnf_module_is_read(tmp_path: Path) -> None:
    assert packages.module_stream(host(tmp_path)) == ""
    text = "[nvidia-driver]\nname=nvidia-driver\nstream=580-open\nprofiles=\nstate={}\n"
    write(tmp_path, {packages.MODULE_STREAM: text.format("enabled")})
    assert packages.module_stream(host(tmp_path)) == "580-open"
    write(tmp_path, {packages.MODULE_STREAM: text.format("disabled")})
    assert packages.module_stream(host(tmp_path)) == ""


def test_the_module_runs_on_this_machine_and_its_result_can_be_judged() -> None:
    result = run_module("kvstrata_gpu_probe", {})
    assert result["changed"] is False
    assert result["real"] is True
    node = Probe.of(result)
    assert node.kernel
    assert decide(wanted(node, gpus=0), node).packages == ()


def test_a_tree_of_a_test_is_said_to_be_one(tmp_path: Path) -> None:
    pci(tmp_path, "0000:01:00.0", "0x10de", "0x26b9", "0x030200")
    write(tmp_path, {"modinfo": OPEN, "proc/sys/kernel/random/boot_id": "one\n"})
    result = run_module("kvstrata_gpu_probe", {"root": str(tmp_path)})
    assert result["real"] is False
    assert result["boot_id"] == "one"
    assert result["installed"]["version"] == "580.95.05"
    assert [device["device"] for device in result["devices"]] == ["0x26b9"]
