"""Which kernel modules serve the GPUs of a node, and whether the branch does."""

from __future__ import annotations

from collections.abc import Sequence

from kvstrata.driver.model import Flavour, Refusal, Wanted
from kvstrata.driver.pciids import (
    FIRST_OPEN_BRANCH,
    LAST_LEGACY_BRANCH,
    LAST_PROPRIETARY_BRANCH,
    TOO_OLD,
    UNKNOWN,
    Device,
    Modules,
)


def choose(wanted: Wanted, gpus: Sequence[Device]) -> tuple[Flavour, list[Refusal]]:
    """Return the flavour for at least one GPU, and what is wrong with it.

    Open is the rule. GPUs without a GSP (Maxwell, Pascal, Volta) have proprietary modules only, and only up to
    branch 580; beside them, those proprietary modules serve Turing to Hopper as well, but never Grace Hopper and
    Blackwell.
    """
    legacy = [gpu for gpu in gpus if gpu.architecture.modules is Modules.PROPRIETARY]
    open_only = [gpu for gpu in gpus if gpu.architecture.modules is Modules.OPEN]
    if legacy and open_only:
        return Flavour.OPEN, [_mixed(wanted, legacy[0], open_only[0])]
    flavour = Flavour.PROPRIETARY if legacy else Flavour.OPEN
    if wanted.flavour == "auto":
        return flavour, []
    asked = Flavour(wanted.flavour)
    if asked is Flavour.OPEN and legacy:
        return asked, [_impossible(wanted, f"proprietary or auto: {legacy[0]} has no GSP, which open modules need")]
    if asked is Flavour.PROPRIETARY and open_only:
        return asked, [_impossible(wanted, f"open or auto: proprietary modules do not know {open_only[0]}")]
    return asked, []


def judge_branch(wanted: Wanted, flavour: Flavour, gpus: Sequence[Device]) -> list[Refusal]:
    """Return why the version's branch does not serve these GPUs, or has no modules of the flavour."""
    branch = wanted.numbers[0]
    refusals = []
    if too_old := [gpu for gpu in gpus if gpu.architecture is TOO_OLD]:
        return [
            Refusal("gpu_too_old", "kvstrata_gpus", str(too_old[0]), "Maxwell or newer; no current driver knows it")
        ]
    oldest = max(gpus, key=lambda gpu: gpu.architecture.first_branch)
    if branch < oldest.architecture.first_branch:
        needed = oldest.architecture.first_branch
        refusals.append(_branch(wanted, "branch_too_old", f"{needed} or newer: the first branch that knows {oldest}"))
    ended = [gpu for gpu in gpus if gpu.architecture.last_branch is not None]
    if ended and branch > LAST_LEGACY_BRANCH:
        text = f"{LAST_LEGACY_BRANCH} or older: the last branch that knows {ended[0]}"
        refusals.append(_branch(wanted, "branch_too_new", text))
    elif flavour is Flavour.PROPRIETARY and branch > LAST_PROPRIETARY_BRANCH:
        text = f"{LAST_PROPRIETARY_BRANCH} or older for proprietary modules; newer branches have open ones only"
        refusals.append(_branch(wanted, "branch_too_new", text))
    if flavour is Flavour.OPEN and branch < FIRST_OPEN_BRANCH:
        text = f"{FIRST_OPEN_BRANCH} or newer for open modules"
        refusals.append(_branch(wanted, "branch_too_old", text))
    return refusals


def notes_on(gpus: Sequence[Device]) -> list[str]:
    """Return what should be known of GPUs that the table does not have."""
    return [
        f"{gpu} is not in the table of PCI ids: taken as one for open modules of branch {UNKNOWN.first_branch} on"
        for gpu in gpus
        if gpu.architecture is UNKNOWN
    ]


def _mixed(wanted: Wanted, legacy: Device, open_only: Device) -> Refusal:
    return Refusal(
        "mixed_gpus",
        "nvidia_driver_flavour",
        wanted.flavour,
        f"nothing: no one kernel module serves both {legacy} (proprietary modules only) and {open_only} "
        "(open modules only). Take one of them out of the node",
    )


def _impossible(wanted: Wanted, allowed: str) -> Refusal:
    return Refusal("wrong_flavour", "nvidia_driver_flavour", wanted.flavour, allowed)


def _branch(wanted: Wanted, code: str, allowed: str) -> Refusal:
    return Refusal(code, "nvidia_driver_version", wanted.version, allowed)
