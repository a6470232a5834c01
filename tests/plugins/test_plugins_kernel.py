"""kvstrata_kernel on trees that look like /proc and /sys: what it sets, keeps for the boot, refuses, and puts back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvstrata.paths import PROJECT
from tests.plugins.modules import run_module

sys.path.insert(0, str(PROJECT / "plugins" / "module_utils"))
import kvstrata_tunables as tunables  # type: ignore[import-not-found]

THP = "sys/kernel/mm/transparent_hugepage/enabled"
GOVERNOR = "sys/devices/system/cpu/cpufreq/policy{}/scaling_governor"
VALUES = {
    "proc/sys/vm/swappiness": "60",
    "proc/sys/vm/dirty_bytes": "0",
    "proc/sys/vm/dirty_ratio": "20",
    "proc/sys/vm/nr_hugepages": "0",
    "proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t6291456",
    "proc/sys/kernel/core_pattern": "core",
    "proc/meminfo": "MemTotal:       8388608 kB\nHugepagesize:       2048 kB",
    THP: "always madvise [never]",
    **{GOVERNOR.format(cpu): "powersave" for cpu in (0, 1)},
    **{GOVERNOR.format(cpu).replace("governor", "available_governors"): "performance powersave" for cpu in (0, 1)},
}


def sysctl(name: str, value: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "value": value, **more}


SWAPPINESS = sysctl("vm.swappiness", "1")
MADVISE = {"name": "thp", "glob": f"/{THP}", "value": "madvise"}
PERFORMANCE = {"name": "governor", "glob": "/" + GOVERNOR.format("*"), "value": "performance"}


class Kernel:
    """A kernel's files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for path, text in VALUES.items():
            self.write(path, f"{text}\n")

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def read(self, path: str) -> str:
        file = self.root / path
        return file.read_text() if file.exists() else ""

    def set(self, *sysctls: dict[str, Any], sysfs: Any = (), check_mode: bool = False) -> dict[str, Any]:
        args = {
            "sysctls": list(sysctls),
            "sysfs": list(sysfs),
            "sysctl_file": str(self.root / "etc/sysctl.d/90-kvstrata.conf"),
            "boot_file": str(self.root / "etc/tmpfiles.d/kvstrata.conf"),
            "root": str(self.root),
        }
        return run_module("kvstrata_kernel", args, check_mode=check_mode)

    def everything(self) -> dict[str, str]:
        return {str(path): path.read_text() for path in self.root.rglob("*") if path.is_file()}


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_a_setting_is_in_force_now_and_written_for_the_boot(kernel: Kernel) -> None:
    result = kernel.set(SWAPPINESS, sysfs=[PERFORMANCE])
    assert (result["changed"], result["set"]) == (True, ["governor", "vm.swappiness"])
    assert kernel.read("proc/sys/vm/swappiness") == "1"
    assert [kernel.read(GOVERNOR.format(cpu)) for cpu in (0, 1)] == ["performance"] * 2
    assert kernel.read("etc/sysctl.d/90-kvstrata.conf").splitlines()[1:] == ["vm.swappiness = 1"]
    boot = kernel.read("etc/tmpfiles.d/kvstrata.conf").splitlines()[1:]
    assert boot == [f"w {PERFORMANCE['glob']} - - - - performance"]


def test_a_second_time_nothing_changes(kernel: Kernel) -> None:
    kernel.set(SWAPPINESS, sysfs=[PERFORMANCE])
    assert kernel.set(SWAPPINESS, sysfs=[PERFORMANCE])["changed"] is False


def test_a_value_that_somebody_changed_meanwhile_is_set_again(kernel: Kernel) -> None:
    kernel.set(SWAPPINESS)
    kernel.write("proc/sys/vm/swappiness", "60\n")
    assert kernel.set(SWAPPINESS)["set"] == ["vm.swappiness"]
    assert kernel.read("proc/sys/vm/swappiness") == "1"


def test_check_mode_says_what_would_change_and_changes_nothing(kernel: Kernel) -> None:
    before = kernel.everything()
    result = kernel.set(SWAPPINESS, sysfs=[PERFORMANCE], check_mode=True)
    assert (result["changed"], result["set"]) == (True, ["governor", "vm.swappiness"])
    assert kernel.everything() == before


def test_several_numbers_are_compared_whatever_is_between_them(kernel: Kernel) -> None:
    same = sysctl("net.ipv4.tcp_rmem", "4096 131072 6291456")
    assert kernel.set(same)["set"] == []


def test_a_value_in_bytes_is_bounded_by_the_memory(kernel: Kernel) -> None:
    kernel.set(sysctl("vm.dirty_bytes", str(4 << 30), most_of_memory=0.1))
    # A tenth of 8 GiB, in whole MiB.
    assert kernel.read("proc/sys/vm/dirty_bytes") == str(819 << 20)


def test_huge_pages_are_counted_in_pages_of_the_kernels_size(kernel: Kernel) -> None:
    kernel.set(sysctl("vm.nr_hugepages", "", mib=1025))
    assert kernel.read("proc/sys/vm/nr_hugepages") == "513"


def test_what_some_kernels_have_not_is_named_and_the_rest_is_set(kernel: Kernel) -> None:
    missing = sysctl("kernel.numa_balancing", "0", where_present=True)
    nowhere = {"name": "turbo", "glob": "/sys/devices/nowhere/*", "value": "1"}
    result = kernel.set(missing, SWAPPINESS, sysfs=[nowhere])
    assert result["absent"] == ["kernel.numa_balancing", "turbo"]
    assert kernel.read("proc/sys/vm/swappiness") == "1"
    assert "numa" not in kernel.read("etc/sysctl.d/90-kvstrata.conf")
    assert kernel.read("etc/tmpfiles.d/kvstrata.conf") == ""


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (sysctl("vm.swapiness", "1"), "vm.swapiness is '1'; allowed: a setting that this kernel has; there is no"),
        (sysctl("vm.../../meminfo", "1"), "allowed: a setting that this kernel has"),
        (sysctl("vm.dirty_bytes", "lots"), "vm.dirty_bytes is 'lots'; allowed: a number, as the kernel has (0)"),
        (sysctl("net.ipv4.tcp_rmem", "4096"), "net.ipv4.tcp_rmem is '4096'; allowed: 3 numbers, as the kernel has"),
        (
            sysctl("vm.nr_hugepages", "", mib=6145),
            "host_hugepages_mib is 6145; allowed: at most three quarters of the memory, 6144 MiB",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_any_is_set(
    kernel: Kernel, bad: dict[str, Any], message: str
) -> None:
    before = kernel.everything()
    result = kernel.set(SWAPPINESS, bad, sysfs=[MADVISE])
    assert result["failed"] is True
    assert message in result["msg"]
    assert kernel.everything() == before


def test_a_value_that_the_kernel_does_not_offer_is_refused_with_those_that_it_does(kernel: Kernel) -> None:
    before = kernel.everything()
    turbo, sometimes = {**PERFORMANCE, "value": "turbo"}, {**MADVISE, "value": "sometimes"}
    result = kernel.set(SWAPPINESS, sysfs=[turbo, sometimes])
    assert "governor is 'turbo'; allowed: what" in result["msg"]
    assert "offers: performance, powersave" in result["msg"]
    assert "thp is 'sometimes'; allowed: what" in result["msg"]
    assert "offers: always, madvise, never" in result["msg"]
    assert kernel.everything() == before


def test_a_background_limit_that_the_kernel_would_halve_is_refused(kernel: Kernel) -> None:
    kernel.write("proc/sys/vm/dirty_background_bytes", "0\n")
    result = kernel.set(sysctl("vm.dirty_background_bytes", "4096"), sysctl("vm.dirty_bytes", "4096"))
    assert "vm.dirty_background_bytes is '4096'; allowed: less than vm.dirty_bytes, 4096" in result["msg"]


def test_a_value_that_the_kernel_does_not_take_has_those_before_it_put_back(kernel: Kernel) -> None:
    before = kernel.everything()
    # A file takes the text as it is, where a kernel takes it for a choice: it then does not read back as wanted.
    result = kernel.set(SWAPPINESS, sysctl("vm.dirty_bytes", "8192"), sysfs=[{**MADVISE, "value": "always [madvise]"}])
    assert "offers" in result["msg"]
    kernel.write(THP, "x\n")
    before = kernel.everything()
    result = kernel.set(SWAPPINESS, sysctl("vm.dirty_bytes", "8192"), sysfs=[{**MADVISE, "value": "a [b] c"}])
    assert result["failed"] is True
    assert "thp is 'a [b] c'; allowed: what the kernel takes" in result["msg"]
    assert "it made 'b' of it" in result["msg"]
    after = {path: text.strip() for path, text in kernel.everything().items()}
    # Not 0, which no kernel takes there: with its ratio, the bytes are 0 again by themselves.
    bytes_file = str(kernel.root / "proc/sys/vm/dirty_bytes")
    assert after == {path: text.strip() for path, text in before.items()} | {bytes_file: "8192"}


def test_with_nothing_wanted_the_files_of_the_boot_are_removed(kernel: Kernel) -> None:
    kernel.set(SWAPPINESS, sysfs=[MADVISE.copy() | {"value": "never"}])
    assert kernel.read("etc/tmpfiles.d/kvstrata.conf") != ""
    assert kernel.set()["changed"] is True
    assert [kernel.read("etc/tmpfiles.d/kvstrata.conf"), kernel.read("etc/sysctl.d/90-kvstrata.conf")] == ["", ""]
    assert kernel.set()["changed"] is False


@pytest.mark.parametrize(
    ("file", "text", "refused"),
    [
        ("etc/sysctl.d/99-local.conf", "vm.swappiness = 60\n", True),
        ("usr/lib/sysctl.d/99-local.conf", "-vm/swappiness=60\n", True),
        ("etc/sysctl.d/99-local.conf", "vm.swappiness = 1\n# vm.swappiness = 60\n", False),
        ("etc/sysctl.d/50-local.conf", "vm.swappiness = 60\n", False),
        ("etc/sysctl.d/99-local.conf", "kernel.core_pattern = x\n", False),
    ],
)
def test_a_file_that_would_undo_a_setting_at_the_next_boot_is_named(
    kernel: Kernel, file: str, text: str, refused: bool
) -> None:
    kernel.write(file, text)
    before = kernel.read("proc/sys/vm/swappiness")
    result = kernel.set(SWAPPINESS)
    assert result.get("failed", False) is refused
    if refused:
        assert "99-local.conf sets at every boot after us, vm.swappiness = 60" in result["msg"]
        assert "or set host_sysctls[vm.swappiness] to null" in result["msg"]
        assert kernel.read("proc/sys/vm/swappiness") == before


def test_of_two_files_with_one_name_the_one_in_etc_counts(kernel: Kernel) -> None:
    kernel.write("usr/lib/sysctl.d/99-local.conf", "vm.swappiness = 60\n")
    kernel.write("etc/sysctl.d/99-local.conf", "vm.swappiness = 1\n")
    assert kernel.set(SWAPPINESS)["changed"] is True


def test_a_later_ratio_would_undo_the_bytes(kernel: Kernel) -> None:
    kernel.write("etc/sysctl.d/99-local.conf", "vm.dirty_ratio = 40\n")
    assert "sets at every boot after us, vm.dirty_ratio = 40" in kernel.set(sysctl("vm.dirty_bytes", "8192"))["msg"]


IDLE = "/proc/sys/net/ipv4/tcp_slow_start_after_idle"
NAMESPACE = ("unshare", "--net")


@pytest.fixture
def real(tmp_path: Path) -> Any:
    """Set sysctls of a network namespace, which ends with the module: a real kernel, and nothing of this machine.

    What the namespace had at its end is in the result, as `idle`.
    """
    if subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("NOT CHECKED: making a network namespace needs root")

    def run(*sysctls: dict[str, Any], **options: Any) -> dict[str, Any]:
        files = {"sysctl_file": str(tmp_path / "90.conf"), "boot_file": str(tmp_path / "boot.conf")}
        seen = tmp_path / "seen"
        look = ("sh", "-c", f'"$@"; cat {IDLE} >{seen}', "sh")
        args = {"sysctls": list(sysctls), **files}
        result = run_module("kvstrata_kernel", args, under=(*NAMESPACE, *look), **options)
        return {**result, "idle": seen.read_text().strip()}

    return run


def test_a_real_kernel_takes_what_is_wanted(real: Any) -> None:
    result = real(sysctl("net.ipv4.tcp_slow_start_after_idle", "0"), sysctl("net.ipv4.tcp_rmem", "4096 131072 8388608"))
    assert result["set"] == ["net.ipv4.tcp_rmem", "net.ipv4.tcp_slow_start_after_idle"]
    assert result["idle"] == "0"


def test_a_real_kernel_that_refuses_a_value_has_the_one_before_it_put_back(real: Any, tmp_path: Path) -> None:
    wanted = [sysctl("net.ipv4.tcp_slow_start_after_idle", "0"), sysctl("net.ipv4.tcp_rmem", "4096 -1 -1")]
    result = real(*wanted)
    assert result["failed"] is True
    assert "net.ipv4.tcp_rmem is '4096 -1 -1'; allowed: what the kernel takes" in result["msg"]
    assert "Invalid argument" in result["msg"]
    assert "NOT PUT BACK" not in result["msg"]
    assert result["idle"] == "1"
    assert not (tmp_path / "90.conf").exists()


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("vm.swappiness", "/proc/sys/vm/swappiness"),
        ("net.ipv4.conf.eth0/1.mtu", "/proc/sys/net/ipv4/conf/eth0.1/mtu"),
        ("net/ipv4/conf/eth0.1/mtu", "/proc/sys/net/ipv4/conf/eth0.1/mtu"),
    ],
)
def test_names_are_read_as_sysctl_reads_them(name: str, path: str) -> None:
    assert tunables.sysctl_path("/", name) == path
