"""One round: drives are made, looked at, judged, and the verdict is held against what was done to them."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kvstrata.lab.guardfuzz import layers, plans, uses
from kvstrata.lab.guardfuzz.code import kvstrata_blockhost, kvstrata_guard
from kvstrata.lab.guardfuzz.loops import CommandError, Loop
from kvstrata.lab.guardfuzz.machine import Machine
from kvstrata.lab.guardfuzz.plans import Plan, Templates

_TAKEN = ("blank", "own", "wipe")
_TOGETHER: dict[str, set[str]] = {
    "": set(),
    "controller": {"shared_controller"},
    "wwid": {"two_names", "multipath_leg"},
}


@dataclass
class Tally:
    """What was counted over all rounds."""

    rounds: int = 0
    drives: int = 0
    accepts: Counter[str] = field(default_factory=Counter)
    """By state."""
    refusals: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    """Kinds of tokens that were tried."""
    small_islands: Counter[str] = field(default_factory=Counter)
    """What was said of single bytes where not every byte is read."""
    false_accepts: int = 0
    false_refusals: int = 0
    missed_reasons: int = 0
    changed_images: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    unplayed: list[str] = field(default_factory=list)
    """Rounds that this machine did not let be played, with why: of those nothing is known."""

    @property
    def good(self) -> bool:
        """Whether nothing went wrong, and nearly all rounds could be played."""
        wrong = self.false_accepts or self.false_refusals or self.missed_reasons or self.changed_images
        return not wrong and len(self.unplayed) * 20 <= self.rounds


@dataclass
class Entry:
    """An entry of kvstrata_drives of a round."""

    name: str
    plans: list[Plan]
    fields: dict[str, Any]


class Round:
    """The drives of one round. A seed says all of it."""

    def __init__(self, seed: str, loops: list[Loop], templates: Templates, folder: Path, tally: Tally) -> None:
        """Take `loops` for drives, all detached, and count in `tally`."""
        self._rng = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
        self._seed, self._templates, self._folder, self._tally = seed, templates, folder, tally
        self._loops = loops

    def play(self) -> None:
        """Make the drives, judge them, and take everything back."""
        try:
            with TemporaryDirectory(dir=self._folder) as scratch, ExitStack() as stack:
                for loop in self._loops:
                    stack.callback(loop.detach)
                self._play(Path(scratch), stack)
        except CommandError as error:
            self._tally.unplayed.append(f"{self._seed}: {error}")
        else:
            self._tally.rounds += 1

    def _play(self, scratch: Path, stack: ExitStack) -> None:
        rng = self._rng
        fstype = rng.choice(("xfs", "ext4"))
        drives = [Plan(index, loop) for index, loop in enumerate(self._loops[: rng.randrange(1, len(self._loops) + 1)])]
        entries = self._entries(drives, fstype, scratch)
        for plan in drives:
            uses.attach(plan, rng)
        layered = rng.random() < 0.5
        layer = layers.Layer(Machine(scratch / "machine", Path("/proc")), rng, real_proc=True)
        if layered and rng.random() < 0.6:
            layer = layers.Layer(Machine(scratch / "files"), rng, real_proc=False)
        if layered:
            self._layer(layer, drives)
        for node in Path("/dev").glob("loop*"):
            layer.machine.node(str(node), str(node))
        self._name(layer.machine, entries)
        for plan in drives:
            if layer.real_proc and not plan.misnamed:
                uses.use(plan, rng, scratch, stack, scratch / "drives" / f"d{plan.index}")
        layer.finish()
        dev = str(layer.machine.root / "dev")
        host = layer.machine.host(real_tools=True) if layered else kvstrata_blockhost.Host(dev=dev)
        self._judge(host, entries)

    # --- making ---

    def _entries(self, drives: list[Plan], fstype: str, scratch: Path) -> list[Entry]:
        """Fill the drives, and make entries of them: one each, or an array of the first two."""
        rng = self._rng
        array = len(drives) > 1 and rng.random() < 0.25
        ours = array and rng.random() < 0.5
        entries = []
        if array:
            name = f"d{drives[0].index}"
            if ours:
                plans.fill_array(drives[:2], rng, f"kvs-{name}")
            else:
                for plan in drives[:2]:
                    plans.fill(plan, rng, self._templates, fstype, alone=False)
            entries.append(Entry(name, drives[:2], {}))
        for plan in drives[2:] if array else drives:
            plans.fill(plan, rng, self._templates, fstype, alone=True)
            entries.append(Entry(f"d{plan.index}", [plan], {}))
        for entry in entries:
            entry.fields = {"name": entry.name, "fstype": fstype, "mount": str(scratch / "drives" / entry.name)}
        return entries

    def _layer(self, layer: layers.Layer, drives: list[Plan]) -> None:
        rng = self._rng
        together = rng.choices(("", "controller", "wwid"), (80, 10, 10))[0] if len(drives) > 1 else ""
        for plan in drives:
            home = "pci0000:00/0000:09:00.0/nvme/nvme9" if together == "controller" else ""
            layer.add(plan, home=home, wwid="eui.same" if together == "wwid" else "")
            if together:
                plan.told.append(f"one {together} for all")
            plan.must |= {"controller": {"shared_controller"}, "wwid": {"two_names", "multipath_leg"}}.get(
                together, set()
            )
        for plan in drives:
            # One fault of a shared controller would be all drives'.
            if together != "controller":
                layer.spoil(plan)

    def _name(self, machine: Machine, entries: list[Entry]) -> None:
        """Name the drives as an inventory does, at times wrongly; and say what is expected of them."""
        rng = self._rng
        for entry in entries:
            for plan in entry.plans:
                plan.path = machine.by_id(f"nvme-fuzz-{plan.index}", plan.loop.device)
            # Of two drives that are in each other's way, both must be there.
            if len(entry.plans) == 1 and not entry.plans[0].must & {"shared_controller", "two_names"}:
                self._misname(machine, entry.plans[0])
            if rng.random() < 0.15:
                self._expect_serial(entry)
            if rng.random() < 0.05:
                entry.fields["size_gib"] = 1
                for plan in entry.plans:
                    plan.must |= set() if plan.misnamed else {"smaller"}
            paths = [plan.path for plan in entry.plans]
            entry.fields |= {"device": paths[0]} if len(paths) == 1 else {"devices": paths}
        if len(entries) > 1 and rng.random() < 0.04:
            first, second = entries[0].plans[0], entries[1].plans[0]
            if not first.misnamed and len(entries[1].plans) == 1:
                entries[1].fields["device"] = machine.by_id("nvme-alias", first.loop.device)
                second.path = entries[1].fields["device"]
                second.loop, second.holds, second.own = first.loop, first.holds, False
                second.must, second.misnamed = {"two_names"}, True
                first.must.add("two_names")
                second.told.append("the first drive by another name")

    def _misname(self, machine: Machine, plan: Plan) -> None:
        what = self._rng.choices(("", "kernel", "nothing", "file", "partition"), (86, 4, 3, 3, 4))[0]
        part = f"{plan.loop.device}p1"
        if what == "kernel":
            plan.path = f"/dev/nvme{plan.index}n1" if plan.layered else plan.loop.device
            plan.must.add("kernel_name")
        elif what == "nothing":
            plan.path, plan.must = machine.by_id(f"nvme-gone-{plan.index}", "/dev/none"), {"missing"}
            plan.misnamed = True
        elif what == "file":
            plan.path, plan.must = machine.by_id(f"nvme-file-{plan.index}", str(plan.loop.image)), {"not_block"}
            plan.misnamed = True
        elif what == "partition" and Path(part).exists() and not plan.layered:
            plan.path, plan.must = machine.by_id(f"nvme-fuzz-{plan.index}-part1", part), {"not_whole"}
            plan.misnamed = True

    def _expect_serial(self, entry: Entry) -> None:
        right = self._rng.random() < 0.5
        serials = [f"S{plan.index}" if right else "S99" for plan in entry.plans]
        for plan in entry.plans:
            if not plan.misnamed:
                wrong = "other_serial" if plan.layered else "no_serial"
                plan.must |= set() if right and plan.layered else {wrong}
        entry.fields |= {"serial": serials[0]} if len(serials) == 1 else {"serials": serials}

    # --- judging ---

    def _look(self, host: Any, entries: list[Entry], tokens: dict[str, Any]) -> Any:
        drives = [kvstrata_guard.Drive.read(entry.fields) for entry in entries]
        # Active swap space is left out: the kernel may write pages to it at any moment.
        attached = [
            plan.loop
            for entry in entries
            for plan in entry.plans
            if plan.loop.device and "swap_in_use" not in plan.must
        ]
        before = [(loop.digest(), loop.written()) for loop in attached]
        verdict = kvstrata_guard.judge(drives, kvstrata_guard.survey(drives, host), tokens)
        if [(loop.digest(), loop.written()) for loop in attached] != before:
            self._tally.changed_images += 1
            self._fail("changed image", entries, verdict, tokens)
        return verdict

    def _judge(self, host: Any, entries: list[Entry]) -> None:
        rng = self._rng
        first = self._look(host, entries, {})
        self._compare(entries, first, {}, {})
        right = {refusal.device: refusal.token for refusal in first.refusals if refusal.token}
        if not right and rng.random() < 0.7:
            return
        given: dict[str, list[str]] = {}
        valid: dict[int, bool] = {}
        for entry in entries:
            for plan in entry.plans:
                kind = rng.choice(("none", "right", "right", "stale", "another's", "random"))
                token = right.get(plan.path, "")
                others = [other for path, other in right.items() if path != plan.path]
                if kind == "right" and token:
                    given.setdefault(entry.name, []).append(token)
                    valid[plan.index] = True
                elif kind == "stale" and token and self._change(plan):
                    given.setdefault(entry.name, []).append(token)
                elif kind == "another's" and others:
                    given.setdefault(entry.name, []).append(rng.choice(others))
                elif kind == "random":
                    given.setdefault(entry.name, []).append(f"{rng.getrandbits(64):016x}")
                else:
                    continue
                self._tally.tokens[kind] += 1
        # A token of another device of the same array is right there: it is not taken for this one, but for that.
        for entry in entries:
            for plan in entry.plans:
                if right.get(plan.path, "") in given.get(entry.name, ()) and plan.told[-1:] != ["changed"]:
                    valid[plan.index] = True
        second = self._look(host, entries, given)
        self._compare(entries, second, given, valid)

    def _change(self, plan: Plan) -> bool:
        """Change one byte of a drive, where every byte counts; it still holds data then."""
        if plan.used or plan.must or not plan.loop.device:
            return False
        offset = self._rng.randrange(0, 8 << 20)
        offset = self._rng.choice((offset, plan.loop.size - 1 - offset))
        with Path(plan.loop.device).open("r+b", buffering=0) as stream:
            stream.seek(offset // 512 * 512)
            block = bytearray(stream.read(512))
            block[offset % 512] = block[offset % 512] % 255 + 1
            stream.seek(offset // 512 * 512)
            stream.write(block)
        plan.told.append("changed")
        return True

    def _compare(self, entries: list[Entry], verdict: Any, tokens: dict[str, Any], valid: dict[int, bool]) -> None:
        for entry in entries:
            state, must = plans.expected(entry.plans, valid)
            seen = verdict.drives[entry.name].state
            reasons = [refusal.reason for refusal in verdict.refusals if refusal.drive == entry.name]
            self._tally.drives += 1
            if seen == "refused":
                self._tally.refusals += 1
                self._tally.reasons.update(reasons)
            else:
                self._tally.accepts[seen] += 1
            if state == "blank or refused":
                self._tally.small_islands[seen] += 1
                if seen in ("blank", "refused", "wipe"):
                    continue
            if seen != "refused" and state != seen:
                # Also a drive of ours that is taken for a blank one.
                self._tally.false_accepts += 1
                self._fail(f"false accept of {entry.name}: {seen}, not {state}", entries, verdict, tokens)
            elif seen == "refused" and state in _TAKEN:
                self._tally.false_refusals += 1
                self._fail(f"false refusal of {entry.name}: {state}", entries, verdict, tokens)
            elif missed := plans.unsaid(must, reasons):
                self._tally.missed_reasons += 1
                self._fail(f"missed {missed} of {entry.name}", entries, verdict, tokens)

    def _fail(self, what: str, entries: list[Entry], verdict: Any, tokens: dict[str, Any]) -> None:
        refusals = [f"{each.drive} {each.device} {each.reason}: {each.seen}" for each in verdict.refusals]
        done = [line for entry in entries for line in plans.describe(entry.plans)]
        failure = {"seed": self._seed, "what": what, "done": done, "refusals": refusals, "tokens": tokens}
        self._tally.failures.append(failure)
