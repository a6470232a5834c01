"""A sysfs and a /proc of files over real devices: what loop devices never are and never have."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from kvstrata.lab.guardfuzz.machine import Machine
from kvstrata.lab.guardfuzz.plans import Plan

_ROOT = "1 0 0:1 / / rw - overlay overlay rw"
MIB = 1 << 20


@dataclass
class Layer:
    """The machine of files of a round, and what its processes will be told."""

    machine: Machine
    rng: random.Random
    real_proc: bool
    mounts: dict[str, list[str]] = field(default_factory=lambda: {"host": [_ROOT]})
    """Lines of mountinfo by namespace."""
    swaps: list[str] = field(default_factory=list)
    writers: list[str] = field(default_factory=list)

    def add(self, plan: Plan, *, home: str = "", wwid: str = "") -> None:
        """Show an attached drive as an NVMe drive of its own."""
        kernel = f"nvme{plan.index}n1"
        where = home or f"pci0000:00/0000:0{plan.index}:00.0/nvme/nvme{plan.index}"
        read_only = {"ro": "1"} if "read_only" in plan.must else {}
        files = {"wwid": wwid or f"eui.{plan.index}{self.rng.randrange(1 << 40):x}", "nsid": "1", **read_only}
        self.machine.device(kernel, plan.loop.number, plan.loop.size, home=where, **files)
        self.machine.node(f"/dev/{kernel}", plan.loop.device)
        self.machine.nvme(kernel, serial=f"S{plan.index}")
        plan.layered = True

    def spoil(self, plan: Plan) -> None:
        """Let sysfs, /proc or udev say something about a drive that must be met with a refusal, or nothing."""
        of_sysfs: list[Callable[[Plan], None]] = [
            *(self._transport, self._twin, self._paths, self._volume, self._multipath, self._partition),
            *(self._read_only, self._size, self._slaves, self._udev_path, self._udev_member, self._export, self._pool),
        ]
        of_proc: list[Callable[[Plan], None]] = [
            *(self._mounted, self._mounted_partition, self._swap, self._swap_above, self._writer, self._system),
        ]
        faults = of_sysfs if self.real_proc else of_sysfs + of_proc * 2
        for fault in self.rng.sample(faults, self.rng.choices((0, 1, 2), (50, 40, 10))[0]):
            plan.told.append(fault.__name__.strip("_"))
            fault(plan)

    def finish(self) -> None:
        """Make the processes, where they are not the real ones."""
        if self.real_proc:
            return
        for number, (namespace, lines) in enumerate(self.mounts.items()):
            self.machine.process(1 if namespace == "host" else 100 + number, lines, namespace)
        for number, path in enumerate(self.writers):
            self.machine.process(500 + number, self.mounts["host"], "host")
            self.machine.opened(500 + number, path, self.rng.choice(("0100002", "0100001", "0140002")))
        self.machine.swaps(*self.swaps)

    # --- what is said ---

    def _kernel(self, plan: Plan) -> str:
        return f"nvme{plan.index}n1"

    def _transport(self, plan: Plan) -> None:
        folder = self.machine.folder(self._kernel(plan))
        # With several controllers, what is said of one of them counts.
        controllers = sorted((folder / "device").resolve().glob("nvme*[0-9]/transport"))
        folder = controllers[0].parent if controllers else folder.parent
        self.machine.attributes(folder, transport=self.rng.choice(("tcp", "rdma", "fc", "loop")))
        plan.must.add("not_local")

    def _twin(self, plan: Plan) -> None:
        wwid = (self.machine.folder(self._kernel(plan)) / "wwid").read_text().strip()
        self.machine.device(f"nvme{plan.index + 20}n1", f"259:{plan.index + 900}", plan.loop.size, wwid=wwid)
        plan.must.add("multipath_leg")

    def _paths(self, plan: Plan) -> None:
        """Two controllers, as a kernel with NVMe multipath shows them."""
        kernel = self._kernel(plan)
        subsystem = self.machine.root / f"sys/devices/virtual/nvme-subsystem/nvme-subsys{plan.index}"
        self.machine.attributes(subsystem, serial=f"S{plan.index}", model="X")
        for controller in (f"nvme{plan.index}", f"nvme{plan.index + 30}"):
            real = self.machine.root / "sys/devices/pci0000:99" / controller
            self.machine.attributes(real, transport="pcie", numa_node="0")
            (subsystem / controller).symlink_to(real)
        link = self.machine.folder(kernel) / "device"
        link.unlink()
        link.symlink_to(subsystem)
        # Both are local ones, whatever was said of the one before.
        plan.must.discard("not_local")
        plan.must.add("multipath_leg")

    def _hold(self, plan: Plan, uuid: str) -> str:
        name = f"dm-{plan.index}"
        held = self.machine.folder(self._kernel(plan))
        self.machine.holder(held, name, f"253:{plan.index}", dm__name=f"x{plan.index}", dm__uuid=uuid)
        plan.must.add("holder")
        return name

    def _volume(self, plan: Plan) -> None:
        self._hold(plan, self.rng.choice(("LVM-1", "CRYPT-LUKS2-1", "part1-x", "DRBD")))

    def _multipath(self, plan: Plan) -> None:
        self.machine.holder(
            self.machine.folder(self._kernel(plan)), f"dm-{plan.index + 10}", f"253:{plan.index + 10}",
            dm__name="mpatha", dm__uuid=f"mpath-{plan.index}",
        )  # fmt: skip
        plan.must |= {"holder", "multipath_leg"}

    def _partition(self, plan: Plan) -> None:
        self._part(plan)

    def _part(self, plan: Plan) -> str:
        """A partition that the kernel has, wherever from."""
        number = f"259:{plan.index + 700}"
        self.machine.partition(self._kernel(plan), 7, number, MIB, 4 * MIB)
        plan.holds, plan.own = "yes", False
        return number

    def _read_only(self, plan: Plan) -> None:
        self.machine.attributes(self.machine.folder(self._kernel(plan)), ro="1")
        plan.must.add("read_only")

    def _size(self, plan: Plan) -> None:
        wrong = plan.loop.size // 512 + self.rng.choice((-8, 8, 2048))
        self.machine.attributes(self.machine.folder(self._kernel(plan)), size=str(wrong))
        plan.must.add("unreadable")

    def _slaves(self, plan: Plan) -> None:
        (self.machine.folder(self._kernel(plan)) / "slaves" / "sda").mkdir(exist_ok=True)
        plan.must.add("not_a_drive")

    def _udev(self, plan: Plan, line: str) -> None:
        with (self.machine.root / "udev" / f"b{plan.loop.number}").open("a") as stream:
            stream.write(f"{line}\n")

    def _udev_path(self, plan: Plan) -> None:
        self._udev(plan, "E:DM_MULTIPATH_DEVICE_PATH=1")
        plan.must.add("multipath_leg")

    def _udev_member(self, plan: Plan) -> None:
        self._udev(plan, "E:ID_FS_TYPE=mpath_member")
        plan.holds, plan.own = "yes", False

    def _export(self, plan: Plan) -> None:
        folder = self.machine.root / f"sys/kernel/config/nvmet/subsystems/nqn.{plan.index}/namespaces/1"
        self.machine.attributes(folder, device_path=f"/dev/{self._kernel(plan)}")
        plan.must.add("busy")

    def _pool(self, plan: Plan) -> None:
        folder = self.machine.root / f"sys/fs/btrfs/{plan.index}-1/devices"
        folder.mkdir(parents=True)
        (folder / self._kernel(plan)).symlink_to(self.machine.folder(self._kernel(plan)))
        plan.must.add("mounted")

    def _see(self, number: str, point: str, namespace: str, fstype: str = "ext4") -> None:
        lines = self.mounts.setdefault(namespace, [_ROOT])
        lines.append(f"{30 + len(lines)} 1 {number} / {point} rw shared:1 - {fstype} /dev/x rw")

    def _namespace(self) -> str:
        return self.rng.choice(("host", "container", "unit"))

    def _mounted(self, plan: Plan) -> None:
        self._see(plan.loop.number, self.rng.choice(("/data", "/mnt/a\\040b", "/srv")), self._namespace())
        plan.must.add("mounted")

    def _mounted_partition(self, plan: Plan) -> None:
        self._see(self._part(plan), "/data", self._namespace())
        plan.must.add("child_in_use")

    def _system(self, plan: Plan) -> None:
        number = self._part(plan)
        if self.rng.random() < 0.5:
            # The system is on a volume on that partition.
            part = self.machine.folder(self._kernel(plan)) / f"{self._kernel(plan)}p7"
            number = f"253:{plan.index + 50}"
            self.machine.holder(part, f"dm-{plan.index + 50}", number, dm__name="vg-root", dm__uuid="LVM-9")
            plan.must.add("holder")
        self._see(number, self.rng.choice(("/", "/boot", "/boot/efi")), "host")
        plan.must |= {"system_disk", "child_in_use"}

    def _swap(self, plan: Plan) -> None:
        self.swaps.append(f"/dev/{self._kernel(plan)}")
        plan.must.add("swap_in_use")

    def _swap_above(self, plan: Plan) -> None:
        self.swaps.append(f"/dev/{self._hold(plan, 'LVM-2')}")
        plan.must |= {"child_in_use", "system_disk"}

    def _writer(self, plan: Plan) -> None:
        self.writers.append(f"/dev/{self._kernel(plan)}")
        plan.must.add("busy")
