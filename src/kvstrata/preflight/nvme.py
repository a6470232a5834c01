"""Rules over the variables nvme_* that a type cannot say: numbers, modes, and options of the wrong file system."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kvstrata.preflight.problem import Problem

_RANGES = {"nvme_readahead_kib": (0, 16384), "nvme_baseline_seconds": (1, 60)}
_PAGE_KIB = 4
_OPTIONS = re.compile(r"[a-z][a-z0-9_]*(=[^,\s]+)?(,[a-z][a-z0-9_]*(=[^,\s]+)?)*")
_MODE = re.compile(r"0[0-7]{3}")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")

# xfs(5) and ext4(5): a file system refuses options that it does not know, and would then not be mounted at all.
_ONLY = {
    "xfs": {
        *("allocsize", "attr2", "inode32", "inode64", "largeio", "nolargeio", "logbsize", "logbufs", "swalloc"),
        *("noalign", "norecovery", "sunit", "swidth", "wsync", "uquota", "gquota", "pquota", "prjquota", "nouuid"),
    },
    "ext4": {
        *("data", "commit", "barrier", "nobarrier", "delalloc", "nodelalloc", "journal_checksum", "journal_ioprio"),
        *("errors", "stripe", "auto_da_alloc", "noauto_da_alloc", "init_itable", "noinit_itable", "block_validity"),
        *("dioread_lock", "dioread_nolock", "max_batch_time", "min_batch_time", "resuid", "resgid", "usrjquota"),
    },
}
_REFUSED = {
    "ro": "a store writes",
    "noauto": "the mount unit decides when",
    "nofail": "the mount unit says so already",
    "remount": "this is for mounting",
    "discard": "the timer discards once a week, which costs nothing while stores work; see docs/drives.md",
}


def judge_nvme(where: str, given: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with the variables nvme_* of `given`; those that are missing have their defaults."""
    problems = []
    for name, (lowest, highest) in _RANGES.items():
        value = given.get(name)
        if value is not None and not lowest <= int(value) <= highest:
            problems.append(Problem(where, name, value, f"{lowest} to {highest}"))
    readahead = given.get("nvme_readahead_kib")
    if readahead is not None and not problems and int(readahead) % _PAGE_KIB:
        problems.append(Problem(where, "nvme_readahead_kib", readahead, f"a multiple of {_PAGE_KIB}, of a page"))
    problems += _options(where, given)
    mode = given.get("nvme_mode")
    if mode is not None and not (_MODE.fullmatch(str(mode)) and int(str(mode), 8) & 0o001):
        allowed = 'four octal digits in quotes that let others pass, which stores need: "0755" or "0711"'
        problems.append(Problem(where, "nvme_mode", mode, allowed))
    for name in ("nvme_owner", "nvme_group"):
        if name in given and not _USER.fullmatch(str(given[name])):
            problems.append(Problem(where, name, given[name], "the name of a user or group"))
    return problems


def _options(where: str, given: Mapping[str, Any]) -> list[Problem]:
    options = given.get("nvme_mount_options")
    if options is None:
        return []
    if not _OPTIONS.fullmatch(str(options)):
        return [Problem(where, "nvme_mount_options", options, "options with commas between them and no blanks")]
    fstype = given.get("nvme_fstype", "xfs")
    names = {option.partition("=")[0] for option in str(options).split(",")}
    reasons = {name: f"it is refused because {why}" for name, why in _REFUSED.items()}
    for other in sorted(_ONLY.keys() - {fstype}):
        reasons |= dict.fromkeys(_ONLY[other], f"it is an option of {other}, and nvme_fstype is {fstype}")
    return [
        Problem(where, "nvme_mount_options", options, f"the same without {name}: {reasons[name]}")
        for name in sorted(names & reasons.keys())
    ]
