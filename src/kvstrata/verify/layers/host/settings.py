"""Whether the kernel has what the role host rendered for every boot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from kvstrata.verify.check import Check, NotCheckedError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.layers.host.survey import Survey

_SYSCTL = re.compile(r"^ *-?([a-z][^#;= ]*) *= *(.*?) *$", re.MULTILINE)
_BOOT = re.compile(r"^w (\S+) - - - - (.*?) *$", re.MULTILINE)
_NOW = re.compile(r"^(\S+) (\S+) = (.*?) *$", re.MULTILINE)
# The kernel lists what it offers, and marks what is in force.
_CHOSEN = re.compile(r"\[([^\]]+)\]")


def sysctls(text: str) -> dict[str, str]:
    """The settings of lines `name = value`, by name, with their white space made uniform."""
    return {name: " ".join(value.split()) for name, value in _SYSCTL.findall(text)}


def boot(text: str) -> dict[str, str]:
    """The values that lines of tmpfiles.d write, by the pattern of their files."""
    return dict(_BOOT.findall(text))


def below_sys(text: str) -> dict[str, dict[str, str]]:
    """What files below /sys hold now: by pattern, then by file; of a list of choices the one in force."""
    found: dict[str, dict[str, str]] = {}
    for pattern, path, value in _NOW.findall(text):
        chosen = _CHOSEN.search(value)
        found.setdefault(pattern, {})[path] = chosen[1] if chosen else value
    return found


def checks(ctx: NodeContext, survey: Survey) -> Iterator[Check]:
    """One row for all settings of a node."""
    yield ctx.question(
        "host.settings",
        "kernel settings of the role host",
        "the kernel has what /etc/sysctl.d/90-kvstrata.conf and /etc/tmpfiles.d/kvstrata.conf say",
        ctx.command("cat /etc/sysctl.d/90-kvstrata.conf /etc/tmpfiles.d/kvstrata.conf"),
    ).ask(partial(_probe, survey))


def _probe(survey: Survey) -> str:
    wanted, now = sysctls(survey.part("sysctl")), sysctls(survey.part("sysctl-now"))
    files, held = boot(survey.part("boot")), below_sys(survey.part("boot-now"))
    if not wanted and not files:
        if survey.container:
            raise NotCheckedError(
                f"the kernel's settings: the node is a container ({survey.container}), and they are its host's"
            )
        raise NotCheckedError(
            "the kernel's settings: the role host wrote none (host_kernel_settings is false, or it did not run)"
        )
    wrong = [
        f"{name} is {now.get(name, 'not there')}, not {value}"
        for name, value in wanted.items()
        if now.get(name) != value
    ]
    for pattern, value in files.items():
        wrong += [f"{path} is {has}, not {value}" for path, has in held.get(pattern, {}).items() if has != value]
        if pattern not in held:
            wrong.append(f"{pattern} is not there, to be {value}")
    if wrong:
        raise UnmetError("; ".join(wrong))
    return f"{len(wanted)} sysctls and {len(files)} settings below /sys are in force"
