"""Kernel settings below /proc/sys and /sys: what is wanted, what is there, and why a wanted value cannot be."""

from __future__ import annotations

import glob
import os
import re
from typing import Any

# The kernel forgets the one when the other is set.
COUNTERPARTS = {
    "vm.dirty_bytes": "vm.dirty_ratio",
    "vm.dirty_background_bytes": "vm.dirty_background_ratio",
}
# Where systemd-sysctl looks (sysctl.d(5)); of files with one name only the first is read, and all of them by name.
SYSCTL_FOLDERS = ("etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d")
# More than this as huge pages leaves too little for everything else.
MOST_AS_HUGEPAGES = 0.75
_SWAPPED = str.maketrans("./", "/.")


class RefusedError(Exception):
    """A value that cannot be set; its text names the setting, what was given and what is allowed."""

    def __init__(self, name: str, given: object, allowed: str) -> None:
        super().__init__(f"{name} is {given!r}; allowed: {allowed}")


class Setting:
    """One wanted value: its name, the files that hold it, what they hold now, and the text to write."""

    def __init__(self, name: str, paths: list[str], value: str, partly: bool = False) -> None:
        self.name = name
        self.paths = paths
        self.value = value
        self.partly = partly
        """Whether the kernel may grant less than is asked for (huge pages)."""

    def differing(self) -> list[str]:
        """Return the files that hold something else."""
        return [path for path in self.paths if current(path) != self.value]


def read(path: str) -> str:
    """Return the text of a file with its white space made uniform, or nothing where it cannot be read."""
    try:
        with open(path) as stream:
            return " ".join(stream.read().split())
    except OSError:
        return ""


def current(path: str) -> str:
    """Return the value in force; where the file lists all of them, as "always [madvise] never", the one in brackets."""
    text = read(path)
    marked = re.search(r"\[([^\]]+)\]", text)
    return marked.group(1) if marked else text


def choices(path: str) -> list[str]:
    """Return the values that the kernel offers for a file, or nothing where it does not say."""
    text = read(path)
    if "[" in text:
        return text.replace("[", "").replace("]", "").split()
    if os.path.basename(path) == "scaling_governor":
        return read(os.path.join(os.path.dirname(path), "scaling_available_governors")).split()
    return []


def sysctl_path(root: str, name: str) -> str:
    """Return the file of a setting."""
    return os.path.join(root, "proc/sys", dotted(name).translate(_SWAPPED))


def dotted(name: str) -> str:
    """Return a name with dots between its parts; where "/" comes first, it is what separates them (sysctl.d(5))."""
    first = re.search(r"[./]", name)
    return name.translate(_SWAPPED) if first and first.group() == "/" else name


def meminfo(root: str, field: str) -> int:
    """Return a field of /proc/meminfo in bytes, 0 where it is missing."""
    found = re.search(rf"^{field}: +(\d+) kB", _whole(os.path.join(root, "proc/meminfo")), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def _whole(path: str) -> str:
    try:
        with open(path) as stream:
            return stream.read()
    except OSError:
        return ""


def value_of(entry: dict[str, Any], root: str) -> str:
    """Return the text to write for a wanted sysctl: bounded by the host's memory, or counted in huge pages."""
    if entry.get("mib"):
        memory, page = meminfo(root, "MemTotal"), meminfo(root, "Hugepagesize")
        if not page:
            raise RefusedError("host_hugepages_mib", entry["mib"], "0: this kernel has no huge pages")
        if entry["mib"] * 1048576 > memory * MOST_AS_HUGEPAGES:
            most = int(memory * MOST_AS_HUGEPAGES) // 1048576
            raise RefusedError("host_hugepages_mib", entry["mib"], f"at most three quarters of the memory, {most} MiB")
        return str(-(-entry["mib"] * 1048576 // page))
    share = entry.get("most_of_memory") or 1
    if share < 1:
        # Whole MiB, for who reads it.
        return str(min(int(entry["value"]), int(meminfo(root, "MemTotal") * share) >> 20 << 20))
    return " ".join(str(entry["value"]).split())


def sysctl_setting(entry: dict[str, Any], root: str) -> Setting | None:
    """Return a wanted sysctl, or None where the kernel has none of the name and may.

    Raises:
        RefusedError: if the kernel does not have it, or it is a number and the value is none.
    """
    name, path = entry["name"], sysctl_path(root, entry["name"])
    if ".." in name or not os.path.isfile(path):
        if entry.get("where_present"):
            return None
        raise RefusedError(name, entry["value"], f"a setting that this kernel has; there is no {path}")
    value, seen = value_of(entry, root), read(path)
    if _numbers(seen) and _numbers(value) != _numbers(seen):
        count = "a number" if _numbers(seen) == 1 else f"{_numbers(seen)} numbers"
        raise RefusedError(name, value, f"{count}, as the kernel has ({seen})")
    return Setting(name, [path], value, partly=bool(entry.get("mib")))


def _numbers(text: str) -> int:
    """Return how many integers a text is made of, 0 where it holds anything else."""
    words = text.split()
    return len(words) if all(re.fullmatch(r"-?\d+", word) for word in words) else 0


def sysfs_setting(entry: dict[str, Any], root: str) -> Setting | None:
    """Return a wanted value below /sys, or None where no file is of that kind.

    Raises:
        RefusedError: if the kernel offers other values only.
    """
    paths = sorted(glob.glob(os.path.join(root, entry["glob"].lstrip("/"))))
    for path in paths:
        offered = choices(path)
        if offered and entry["value"] not in offered:
            raise RefusedError(entry["name"], entry["value"], f"what {path} offers: {', '.join(offered)}")
    return Setting(entry["name"], paths, entry["value"]) if paths else None


def contradictions(wanted: dict[str, str]) -> list[RefusedError]:
    """Return what the kernel would take and then not do: it halves a background limit not below the other."""
    found = []
    for unit in ("bytes", "ratio"):
        background, other = f"vm.dirty_background_{unit}", f"vm.dirty_{unit}"
        if background in wanted and other in wanted and int(wanted[background]) >= int(wanted[other]):
            found.append(RefusedError(background, wanted[background], f"less than {other}, {wanted[other]}"))
    return found


def overrides(root: str, own: str, wanted: dict[str, str]) -> list[RefusedError]:
    """Return what another file of sysctl.d sets to another value after ours, at every boot.

    Args:
        root: where the file systems are.
        own: the name of our file.
        wanted: our values by name.
    """
    other_name = {**COUNTERPARTS, **{ratio: byte for byte, ratio in COUNTERPARTS.items()}}
    found = []
    files: dict[str, str] = {}
    for folder in SYSCTL_FOLDERS:
        for path in glob.glob(os.path.join(root, folder, "*.conf")):
            files.setdefault(os.path.basename(path), path)
    for base in sorted(name for name in files if name > own):
        for name, value in assignments(_whole(files[base])):
            ours = name if name in wanted else other_name.get(name)
            if ours in wanted and (ours != name or value != wanted[ours]):
                allowed = f"what {files[base]} sets at every boot after us, {name} = {value}; change that file"
                found.append(RefusedError(ours, wanted[ours], f"{allowed}, or set host_sysctls[{ours}] to null"))
    return found


def assignments(text: str) -> list[tuple[str, str]]:
    """Return the settings of a file of sysctl.d by their names with dots."""
    found = []
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and name[:1] not in ("#", ";"):
            name = name.strip().lstrip("-")
            found.append((dotted(name), " ".join(value.split())))
    return found
