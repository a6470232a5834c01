"""What NVMe drives say of themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from kvstrata.cluster import Mount
from kvstrata.verify.check import Check, Json, NotCheckedError, UnableError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.layers.host import mounts
from kvstrata.verify.layers.host.survey import Survey

# Bits of the critical warning (NVM Express Base Specification, SMART / Health Information).
_WARNINGS = (
    "spare space is short",
    "too hot or too cold",
    "less reliable after media errors",
    "read-only",
    "its backup of volatile memory failed",
    "its persistent memory is read-only",
)


def checks(ctx: NodeContext, survey: Survey) -> Iterator[Check]:
    """Every drive that the inventory mounts."""
    for mount in ctx.node.mounts:
        data: dict[str, Json] = {}
        yield ctx.question(
            "host.drive_health",
            f"{mounts.drive_of(mount)} health",
            "no critical warning, spare blocks enough, not worn out",
            ctx.command("nvme smart-log " + (mount.device or "DEVICE")),
        ).ask(partial(_health, survey, mount, data), data)


def smart(text: str) -> dict[str, Any]:
    """The document of `nvme smart-log --output-format=json`, from the survey's part; UnableError where it is none."""
    body, _, status = text.rpartition("\n")
    if status.strip() != "exit 0":
        raise UnableError(f"`nvme smart-log` ended with {status.strip()} and said: {' '.join(body.split())[:160]}")
    try:
        found: dict[str, Any] = json.loads(body)
    except ValueError:
        raise UnableError(f"`nvme smart-log` wrote no JSON: {body[:120]!r}") from None
    return found


def judged(drive: str, found: Mapping[str, Any]) -> tuple[list[str], dict[str, Json]]:
    """What is wrong with a drive by its own log, and the figures."""
    warning = found.get("critical_warning", 0)
    # Newer nvme-cli spells the bits out beside the number.
    bits = int(warning.get("value", 0)) if isinstance(warning, Mapping) else int(warning)
    spare, least = int(found.get("avail_spare", 100)), int(found.get("spare_thresh", 0))
    used = int(found.get("percent_used", found.get("percentage_used", 0)))
    wrong = [text for bit, text in enumerate(_WARNINGS) if bits >> bit & 1]
    if spare < least and not bits & 1:
        wrong.append(_WARNINGS[0])
    if used >= 100:
        wrong.append(f"{used} % of the writes that its maker warrants are used up")
    figures: dict[str, Json] = {
        "critical_warning": bits,
        "media_errors": int(found.get("media_errors", 0)),
        "used_percent": used,
        "spare_percent": spare,
    }
    return [f"{drive}: {text}" for text in wrong], figures


def _health(survey: Survey, mount: Mount, data: dict[str, Json]) -> str:
    try:
        leaves = mounts.mounted(survey, mount.path).leaves
    except UnmetError as error:
        raise NotCheckedError(f"the drive's health: it is {error}, see host.mount") from None
    disks = [name for _, name in leaves if name.startswith("nvme")]
    if not disks:
        kinds = ", ".join(name for _, name in leaves) or "an unknown device"
        raise NotCheckedError(f"the drive's health: {kinds} is no NVMe drive and keeps no log of it")
    if survey.part("smart") == "missing":
        raise NotCheckedError("the drive's health: there is no nvme-cli on the node (the role nvme installs it)")
    wrong: list[str] = []
    seen = []
    for disk in disks:
        bad, figures = judged(disk, smart(survey.part(f"smart {disk}")))
        data[disk] = figures
        wrong += bad
        seen.append(
            f"{disk}: {figures['used_percent']} % used, {figures['spare_percent']} % spare, "
            f"{figures['media_errors']} media errors in its life"
        )
    if wrong:
        raise UnmetError("; ".join(wrong))
    return "; ".join(seen)
