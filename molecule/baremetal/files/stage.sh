#!/usr/bin/env bash
# Put onto each drive of vm2 what a colleague may have there: nothing of it may be lost. One drive, one reason.
# refusals.yml says what is expected of each.
set -euo pipefail

drive() { printf '/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_KVSVM2D%02d' "$1"; }
secret() { printf 'for nothing but this test'; }
# The initialisation that ext4 puts off would write when nobody does.
at_once=(-E lazy_itable_init=0,lazy_journal_init=0)

# What is to lie there inactive is not to be assembled by udev.
echo 'AUTO -all' >>/etc/mdadm/mdadm.conf

sgdisk --clear "$(drive 0)"
sgdisk --new=1:0:0 "$(drive 1)"
mkfs.ext4 -q "${at_once[@]}" "$(drive 2)"
mkfs.xfs -q -L data "$(drive 3)"
mkswap "$(drive 4)"
mkswap "$(drive 5)"
swapon "$(drive 5)"
pvcreate --yes "$(drive 6)"
pvcreate --yes "$(drive 7)"
vgcreate group7 "$(drive 7)"
lvcreate --yes --extents=10 --name=volume group7
mdadm --create /dev/md/inactive --run --level=1 --raid-devices=2 --metadata=1.2 "$(drive 8)" missing
mdadm --stop /dev/md/inactive
mdadm --create /dev/md/active --run --level=1 --raid-devices=2 --metadata=1.2 "$(drive 9)" missing
for index in 10 11; do
  secret | cryptsetup luksFormat --batch-mode --type=luks1 --pbkdf-force-iterations=1000 "$(drive $index)" -
done
secret | cryptsetup open --key-file=- "$(drive 11)" opened
mkfs.ext4 -q "${at_once[@]}" "$(drive 13)"
mkfs.ext4 -q "${at_once[@]}" "$(drive 14)"
mkfs.xfs -q -L kvs-other "$(drive 17)"

# No tool of ZFS is here: its uberblocks, as libblkid looks for them; bytes of nobody knows what, in front and at the end.
python3 - "$(drive 12)" "$(drive 15)" "$(drive 16)" <<'PYTHON'
import struct, sys

zfs, front, end = sys.argv[1:]
with open(zfs, "r+b") as device:
    for number in range(64):
        device.seek((128 << 10) + number * 1024)
        device.write(struct.pack("<5Q", 0x00BAB10C, 5000, 4, 0, 1))
with open(front, "r+b") as device:
    device.seek(300_000)
    device.write(b"somebody's data")
with open(end, "r+b") as device:
    device.seek(-5000, 2)
    device.write(b"somebody's data")
PYTHON

mkdir -p /srv/mounted
mount "$(drive 13)" /srv/mounted
# Seen by no process but its own.
systemd-run --quiet --unit=lab-hidden --property=PrivateMounts=yes \
  sh -c "mount $(drive 14) /mnt && touch /run/lab-hidden && exec sleep infinity"
systemd-run --quiet --unit=lab-busy \
  python3 -c 'import os, signal, sys
os.open(sys.argv[1], os.O_RDONLY | os.O_EXCL)
open("/run/lab-busy", "w").close()
signal.pause()' "$(drive 19)"
until test -e /run/lab-hidden && test -e /run/lab-busy; do sleep 0.2; done
blockdev --setro "$(drive 20)"
ln -s /etc/hostname /dev/disk/by-id/nvme-no-device

udevadm settle
sync
