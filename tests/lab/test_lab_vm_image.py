import struct
from dataclasses import replace

import pytest

from kvstrata.lab.image import File
from kvstrata.lab.vmimage import VmRecipe, boot_sectors, host_recipe


def contents(recipe: VmRecipe) -> dict[str, str]:
    return {file.path: file.content for file in recipe.files}


def test_the_same_recipe_has_the_same_folder_and_another_key_another() -> None:
    assert host_recipe("ssh-ed25519 A", "KEY").folder == host_recipe("ssh-ed25519 A", "KEY").folder
    others = {host_recipe(login, host).folder for login in ("A", "B") for host in ("K", "L")}
    assert len(others) == 4


def test_whatever_changes_the_disk_changes_its_digest() -> None:
    base = host_recipe("A", "K")
    variants = [
        base,
        replace(base, packages=(*base.packages, "hello")),
        replace(base, masked=()),
        replace(base, sources="Types: deb\n"),
        replace(base, files=(*base.files, File("etc/issue", "hello"))),
    ]
    assert len({variant.digest() for variant in variants}) == len(variants)
    assert all(isinstance(variant, VmRecipe) for variant in variants)


def test_a_machine_has_nothing_of_a_container() -> None:
    recipe = host_recipe("A", "K")
    assert "usr/local/sbin/lab-init" not in contents(recipe)
    assert not [unit for unit in recipe.masked if "udev" in unit or "fstrim" in unit]


def test_only_the_labs_key_is_admitted_and_the_host_key_is_nobody_elses_to_read() -> None:
    recipe = host_recipe("ssh-ed25519 AAAA lab\n", "PRIVATE")
    assert contents(recipe)["etc/ssh/authorized_keys.d/root"] == "ssh-ed25519 AAAA lab\n"
    (key,) = (file for file in recipe.files if file.path == "etc/ssh/ssh_host_ed25519_key")
    assert key.mode == 0o600


def test_the_boot_loader_takes_kernel_and_initramfs_from_the_disk() -> None:
    lines = contents(host_recipe("A", "K"))["boot/grub/grub.cfg"].splitlines()
    assert lines[0].startswith("linux /vmlinuz root=LABEL=root ro ")
    assert lines[1:] == ["initrd /initrd.img", "boot"]


def test_the_initramfs_has_the_driver_of_the_drives() -> None:
    # Without it no array is put together there, and a wrong initramfs could not show.
    assert "nvme" in contents(host_recipe("A", "K"))["usr/share/initramfs-tools/modules.d/lab"].split()


def test_the_disk_begins_with_the_boot_loader_and_one_active_partition() -> None:
    sectors = boot_sectors(b"\x90" * 512, b"core", 8 * 2**30)
    assert sectors[:440] == b"\x90" * 440
    assert sectors[510:512] == b"\x55\xaa"
    assert sectors[512:] == b"core"
    active, kind, first, count = struct.unpack("<B3xB3xII", sectors[446:462])
    assert (active, kind, first) == (0x80, 0x83, 2048)
    assert (first + count) * 512 == 8 * 2**30
    assert sectors[462:510] == bytes(48)


def test_a_boot_loader_that_does_not_fit_is_refused() -> None:
    assert boot_sectors(bytes(512), bytes(2047 * 512), 2**30)
    with pytest.raises(ValueError, match=r"core\.img has 1048576 bytes"):
        boot_sectors(bytes(512), bytes(2048 * 512), 2**30)


def test_machines_are_told_apart_before_they_make_keys() -> None:
    script = contents(host_recipe("A", "K"))["usr/local/sbin/lab-identity"]
    order = [script.index(word) for word in ("date --set", "0x5207", "ssh-keygen -q", "systemctl reload ssh")]
    assert order == sorted(order)
