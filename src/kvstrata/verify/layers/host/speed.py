"""How fast the drives read, against the baseline that was recorded when they were made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from kvstrata.cluster import Mount
from kvstrata.verify.check import Check, Json, NotCheckedError, UnableError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.layers.host import mounts, onnode
from kvstrata.verify.layers.host.onnode import read_drives
from kvstrata.verify.layers.host.survey import Survey
from kvstrata.verify.shell import CommandTimeoutError

# From here on a drive has filled up too much for a baseline of blocks that were never written.
GROWN_SHARE = 0.25
_MEASURE = "to measure: ansible-playbook playbooks/hosts.yml --tags nvme -e nvme_baseline=always"


@dataclass(frozen=True)
class Reading:
    """How fast a drive read; rates in 10^6 bytes a second. `best` is of the quickest of the spans read."""

    best: float
    others: float
    """What others moved meanwhile: a drive that is at work is not slow for it."""
    source: str
    used_bytes: int
    size_bytes: int

    @property
    def rate(self) -> float:
        """What the drive did in all."""
        return self.best + self.others


def checks(ctx: NodeContext, survey: Survey) -> Iterator[Check]:
    """Every drive that the inventory mounts."""
    readings = _Readings(ctx, survey)
    share = ctx.cluster.verify.limits.drive_share
    for mount in ctx.node.mounts:
        speed: dict[str, Json] = {}
        yield ctx.question(
            "host.drive_speed",
            f"{mounts.drive_of(mount)} read rate",
            f"at least {share:g} of its recorded baseline",
            ctx.command("cat /etc/ansible/facts.d/kvstrata_drives.fact"),
        ).ask(partial(_speed, readings, mount, share, speed), speed)


class _Readings:
    """All drives of a node are read by one command, when the first of them is asked for; the slow ones once more."""

    def __init__(self, ctx: NodeContext, survey: Survey) -> None:
        self._ctx = ctx
        self.survey = survey
        self._found: dict[str, dict[str, Any]] | None = None

    def baselines(self) -> Mapping[str, Mapping[str, Any]]:
        """The drives of the fact by their names."""
        text = self.survey.part("drives")
        try:
            fact = json.loads(text) if text else {}
        except ValueError:
            raise UnableError("kvstrata_drives.fact is not JSON") from None
        drives: Mapping[str, Mapping[str, Any]] = fact.get("drives", {}) if fact.get("schema") == 1 else {}
        return drives

    def of(self, mount: Mount, again: bool = False) -> Reading:
        """How fast a drive reads; UnmetError where it cannot be read."""
        if again:
            answer = self._read([mount])[mounts.drive_of(mount)]
        else:
            if self._found is None:
                self._found = self._read([each for each in self._ctx.node.mounts if self._is_measurable(each)])
            answer = self._found[mounts.drive_of(mount)]
        if answer.get("denied"):
            raise UnableError(f"the node may not read the device: {answer['error']}")
        if answer["error"]:
            raise UnmetError(f"cannot be read: {answer['error']}")
        return reading(answer)

    def _is_measurable(self, mount: Mount) -> bool:
        try:
            mounts.mounted(self.survey, mount.path)
        except (UnmetError, UnableError):
            return False
        return bool(self.baselines().get(mounts.drive_of(mount), {}).get("baseline"))

    def _read(self, which: list[Mount]) -> dict[str, dict[str, Any]]:
        drives = self.baselines()
        asked: dict[str, Json] = {}
        for mount in which:
            found = mounts.mounted(self.survey, mount.path)
            written = bool(drives[mounts.drive_of(mount)]["baseline"].get("on_written_data"))
            asked[mounts.drive_of(mount)] = {
                "mount": mount.path,
                "device": found.source,
                "number": found.number,
                "written": written,
            }
        limit = min(self._ctx.timeout_s, 10 + 10 * len(which))
        try:
            done = self._ctx.shell.run(onnode.command(read_drives, asked), limit)
        except CommandTimeoutError:
            # Its own message would hold the whole program.
            raise UnmetError(f"reading 256 MiB did not end within {limit:g} s") from None
        if done.exit_code != 0:
            raise UnableError(f"the reading program exited {done.exit_code} and said: {done.stderr.strip()[-200:]}")
        answer: dict[str, dict[str, Any]] = json.loads(done.stdout)
        return answer


def reading(answer: Mapping[str, Any]) -> Reading:
    """What the program on the node found, as rates."""
    rates = [span["bytes"] / 1e6 / max(span["seconds"], 1e-6) for span in answer["spans"]]
    # The last span may be cut short by the deadline, or be of few blocks: it counts where it is the only one.
    whole = [rate for rate, span in zip(rates, answer["spans"], strict=True) if span["bytes"] >= 1 << 26] or rates
    return Reading(
        best=max(whole, default=0.0),
        others=answer["others_bytes"] / 1e6 / max(answer["seconds"], 1e-6),
        source=answer["from"],
        used_bytes=answer["used_bytes"],
        size_bytes=answer["size_bytes"],
    )


def _speed(readings: _Readings, mount: Mount, share: float, data: dict[str, Json]) -> str:
    try:
        found = mounts.mounted(readings.survey, mount.path)
        mounts.judge(readings.survey, mount)
    except UnmetError as error:
        raise NotCheckedError(
            f"the drive's read rate: it is not mounted as it must be ({error}), see host.mount"
        ) from None
    entry = readings.baselines().get(mounts.drive_of(mount), {})
    baseline = entry.get("baseline")
    if not baseline:
        raise NotCheckedError(f"the drive's read rate: no baseline was recorded; {_MEASURE}")
    if found.uuid and entry.get("uuid") and found.uuid != entry["uuid"]:
        raise NotCheckedError(f"the drive's read rate: the baseline is of another file system; {_MEASURE}")
    recorded = float(baseline["seq_1m"]["mb_per_s"])
    now = readings.of(mount)
    if now.rate < share * recorded:
        # Once more: what else the node did at that moment is not the drive's fault, and a slow drive stays slow.
        now = max(now, readings.of(mount, again=True), key=lambda each: each.rate)
    reached = now.rate / recorded
    data |= {"mb_per_s": round(now.best, 1), "others_mb_per_s": round(now.others, 1), "baseline_mb_per_s": recorded}
    others = f", others {now.others:.0f} MB/s meanwhile" if now.others >= 1 else ""
    seen = f"{now.best:.0f} MB/s from its {now.source}{others}: {reached:.2f} of {recorded:.0f} MB/s"
    if reached >= share:
        return seen
    grown = now.used_bytes - int(baseline.get("used_bytes", 0))
    if not baseline.get("on_written_data") and grown > GROWN_SHARE * now.size_bytes:
        raise NotCheckedError(
            f"the drive's read rate ({seen}): the baseline is of blocks that were never written, which a drive answers "
            f"without reading, and it has filled up since; {_MEASURE}"
        )
    raise UnmetError(seen)
