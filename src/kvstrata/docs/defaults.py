"""Compare what a role does by default with what its specification says it does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kvstrata.docs.specs import ABSENT, Role


@dataclass(frozen=True)
class Mismatch:
    """A variable whose two defaults differ; ABSENT where one of them is not stated."""

    role: str
    variable: str
    specified: Any
    effective: Any

    def __str__(self) -> str:
        """Return the one line that a developer reads."""
        return (
            f"role {self.role}: {self.variable} is {self.specified!r} in meta/argument_specs.yml "
            f"and {self.effective!r} in defaults/main.yml"
        )


def mismatches(roles: Iterable[Role]) -> Iterator[Mismatch]:
    """Yield every variable of `roles` whose stated default is not the one that applies."""
    for role in roles:
        specified = {option.name: option.default for option in role.options}
        for name in dict.fromkeys((*specified, *role.defaults)):
            stated, effective = specified.get(name, ABSENT), role.defaults.get(name, ABSENT)
            if not _same(stated, effective):
                yield Mismatch(role.name, name, stated, effective)


def _same(one: Any, other: Any) -> bool:
    # To Python, true equals 1; to who reads the table, it does not.
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
