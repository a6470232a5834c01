"""Whether the units run, and with the limits that they ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from kvstrata.verify import units
from kvstrata.verify.check import Check, Json, NotCheckedError, UnableError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.layers.host.survey import Survey

_LIMIT = re.compile(r"^(Max [a-z ]+?)  +(\S+) +(\S+)", re.MULTILINE)
_LIMITS = {"NOFILE": ("Max open files", "open files"), "MEMLOCK": ("Max locked memory", "bytes of locked memory")}
_INFINITE = float("inf")
# fs.nr_open, which "infinity" open files come to.
_MOST_FILES = 1048576


@dataclass(frozen=True)
class Limit:
    """A resource limit of a process, in files or bytes; infinite where there is none."""

    soft: float
    hard: float


def shown(survey: Survey) -> dict[str, dict[str, str]]:
    """What `systemctl show` says of each unit, by its name."""
    found = {}
    for block in survey.part("units").split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line)
        if "Id" in values:
            found[values["Id"]] = values
    return found


def limits(text: str) -> dict[str, Limit]:
    """The limits of a process by their names, from /proc/PID/limits."""
    return {name: Limit(_number(soft), _number(hard)) for name, soft, hard in _LIMIT.findall(text)}


def checks(ctx: NodeContext, survey: Survey) -> Iterator[Check]:
    """Every unit that the inventory names, and the limits of all that run."""
    try:
        states = units.states(ctx.shell, ctx.node.units)
        failure = ""
    except UnableError as error:
        states, failure = {}, str(error)
    for unit in ctx.node.units:
        question = ctx.question("host.unit", unit, "active (running) and enabled at boot", ctx.journal(unit))
        yield question.error(failure) if failure else question.ask(partial(_unit, unit, states))
    if ctx.node.units:
        data: dict[str, Json] = {}
        yield ctx.question(
            "host.limits",
            "limits of the units",
            "as many open files and as much locked memory as each unit asks for",
            ctx.command("systemctl show --property=LimitNOFILE,LimitMEMLOCK,MainPID " + " ".join(ctx.node.units)),
        ).ask(partial(_limits, survey, data), data)


def _unit(unit: str, states: Mapping[str, units.UnitState]) -> str:
    state = states.get(unit)
    if state is None or state.load == "not-found":
        raise UnmetError("systemd knows no such unit")
    counted = f"{state.restarts} restarts by itself" if state.restarts != 1 else "1 restart by itself"
    seen = f"{state.active} ({state.sub}), {state.enabled or 'without install section'}, {counted}"
    if not state.running:
        raise UnmetError(f"{seen}, result {state.result}")
    if state.enabled != "enabled":
        raise UnmetError(seen)
    return f"{seen}, since {state.since}"


def _limits(survey: Survey, data: dict[str, Json]) -> str:
    most = limits(survey.get("process 1"))
    # Units that lack the same are told in one go: a node has a dozen, and a container clamps all of them.
    short: dict[str, list[str]] = {}
    clamped: dict[str, list[str]] = {}
    seen = 0
    for unit, values in shown(survey).items():
        found = limits(survey.get(f"process {values.get('MainPID', '0')}"))
        if not found:
            continue
        seen += 1
        data[unit] = {kind: _text(found[name].hard) for kind, (name, _) in _LIMITS.items() if name in found}
        for kind, (name, noun) in _LIMITS.items():
            asked = _asked(kind, values)
            if name not in found or asked is None or _reaches(found[name], asked):
                continue
            by_container = survey.container and name in most and most[name].hard <= found[name].hard < asked.hard
            lacking = clamped if by_container else short
            lacking.setdefault(_lack(found[name], asked, noun), []).append(unit)
    if short:
        raise UnmetError(_told(short))
    if clamped:
        raise NotCheckedError(
            f"that the limits are enough for a real load: the node is a container ({survey.container}), which can "
            f"raise none above its own: {_told(clamped)}"
        )
    if not seen:
        raise NotCheckedError("the limits of any unit: none of them has a process")
    return f"{seen} units have what they ask for"


def _reaches(found: Limit, asked: Limit) -> bool:
    return found.hard >= asked.hard and found.soft >= asked.soft


def _lack(found: Limit, asked: Limit, noun: str) -> str:
    if found.hard < asked.hard:
        return f"{_text(found.hard)} {noun}, asked for are {_text(asked.hard)}"
    return f"{_text(found.soft)} {noun} (soft limit), asked for are {_text(asked.soft)}"


def _told(lacking: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{lack}: {', '.join(units)}" for lack, units in lacking.items())


def _asked(kind: str, values: Mapping[str, str]) -> Limit | None:
    hard = values.get(f"Limit{kind}", "")
    if not hard:
        return None
    asked = Limit(_number(values.get(f"Limit{kind}Soft") or hard), _number(hard))
    if kind == "NOFILE":
        return Limit(min(asked.soft, _MOST_FILES), min(asked.hard, _MOST_FILES))
    return asked


def _number(text: str) -> float:
    return float(text) if text.isdigit() else _INFINITE


def _text(value: float) -> str:
    return "unlimited" if value == _INFINITE else f"{value:.0f}"
