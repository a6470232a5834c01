"""Judge what an inventory says of Kvrocks, and make the directives of a store of it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from kvstrata.kvrocks.directives import DIRECTIVES, OWNED, VERSION, is_ignored
from kvstrata.kvrocks.profiles import DEFAULT, PROFILES
from kvstrata.preflight.problem import Problem

EVERY_ADDRESS = frozenset({"0.0.0.0", "::", "*"})  # noqa: S104 - the ones to refuse


def judge_settings(where: str, given: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with the variables kvrocks_* of `given`; those that are missing have their defaults."""
    problems = _profile(where, given.get("kvrocks_profile", DEFAULT))
    problems += _directives(where, given.get("kvrocks_config") or {})
    workers = given.get("kvrocks_workers")
    if workers is not None and _refuses("workers", workers):
        problems.append(Problem(where, "kvrocks_workers", workers, "1 to 256"))
    problems += [
        Problem(where, "kvrocks_instances[].max_db_size_gib", instance["max_db_size_gib"], "1 or more")
        for instance in given.get("kvrocks_instances") or []
        if int(instance["max_db_size_gib"]) < 1
    ]
    return problems + _binds(where, given)


def directives(profile: str, workers: int, config: Mapping[str, Any]) -> dict[str, str]:
    """Return the directives that all stores of a host share, each as CONFIG GET reports it.

    Raises:
        ValueError: if something is refused by judge_settings.
    """
    wanted = {**PROFILES[profile], "workers": workers, **config}
    return {name: DIRECTIVES[name].canonical(value) for name, value in wanted.items()}


def addresses(bind: str, also: list[str]) -> str:
    """Return what a store listens on; every address of a family makes the single ones of it superfluous."""
    wanted = list(dict.fromkeys([bind, *also]))
    return " ".join([each for each in wanted if each in EVERY_ADDRESS] or wanted)


def _profile(where: str, name: object) -> list[Problem]:
    if name in PROFILES:
        return []
    return [Problem(where, "kvrocks_profile", name, ", ".join(PROFILES))]


def _directives(where: str, config: Mapping[str, Any]) -> list[Problem]:
    problems = []
    for name, value in config.items():
        allowed = ""
        if is_ignored(name):
            allowed = f"not this one: Kvrocks {VERSION} ignores it, with no more than a warning on its standard output"
        elif name in OWNED:
            allowed = f"nothing here: {OWNED[name]}"
        elif name.startswith("tls-"):
            allowed = "nothing here: set by kvrocks_tls"
        elif name not in DIRECTIVES:
            allowed = _meant(name)
        elif _refuses(name, value):
            allowed = DIRECTIVES[name].allowed
        if allowed:
            problems.append(Problem(where, f"kvrocks_config[{name}]", value, allowed))
    return problems


def _refuses(name: str, value: object) -> bool:
    try:
        DIRECTIVES[name].canonical(value)
    except ValueError:
        return True
    return False


def _meant(name: str) -> str:
    """Return what may have been meant by a name that Kvrocks does not know."""
    close = difflib.get_close_matches(name, [*DIRECTIVES, *OWNED], n=1, cutoff=0.7)
    close = close or [f"rocksdb.{name}"] * (f"rocksdb.{name}" in DIRECTIVES)
    if close:
        return f"a directive of Kvrocks {VERSION}; did you mean {close[0]}?"
    return f"a directive of Kvrocks {VERSION}, as its kvrocks.conf names them"


def _binds(where: str, given: Mapping[str, Any]) -> list[Problem]:
    if given.get("kvrocks_firewalled", False):
        return []
    allowed = "one address of the host, never all of them unless kvrocks_firewalled says that a firewall guards them"
    return [
        Problem(where, variable, address, allowed)
        for variable, values in (
            ("kvrocks_bind", [given.get("kvrocks_bind")]),
            ("kvrocks_bind_also", given.get("kvrocks_bind_also") or []),
        )
        for address in values
        if address in EVERY_ADDRESS
    ]
