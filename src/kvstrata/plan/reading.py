"""Reading of what a user hands in, with errors that name the field, what was given and what is allowed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

_MISSING = object()


class BadInputError(ValueError):
    """Input that cannot be planned with; the message names field, given and allowed."""

    def __init__(self, field: str, given: object, allowed: str) -> None:
        """Say what is wrong; `given` is shown as Python writes it, shortened."""
        shown = repr(given)
        super().__init__(f"{field} is {shown if len(shown) <= 120 else shown[:117] + '...'}; allowed: {allowed}")
        self.field = field


def document(path: Path, what: str) -> dict[str, Any]:
    """Return the mapping in a YAML or JSON file.

    Raises:
        BadInputError: when it cannot be read, is neither, or holds no mapping.
    """
    try:
        loaded = yaml.safe_load(path.read_text())
    except OSError as error:
        raise BadInputError(what, str(path), f"a file that can be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInputError(what, str(path), f"a YAML or JSON file ({str(error).splitlines()[0]})") from None
    if not isinstance(loaded, dict):
        raise BadInputError(what, str(path), f"a file with one mapping, not a {type(loaded).__name__}")
    return loaded


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Return the object in a JSON file; BadInputError when there is none."""
    try:
        loaded = json.loads(path.read_text())
    except OSError as error:
        raise BadInputError(what, str(path), f"a file that can be read ({error.strerror})") from None
    except ValueError as error:
        raise BadInputError(what, str(path), f"a JSON file ({error})") from None
    if not isinstance(loaded, dict):
        raise BadInputError(what, str(path), f"a file with one object, not a {type(loaded).__name__}")
    return loaded


class Fields:
    """The fields of one mapping; `where` is its path, as "node.drives[0]"."""

    def __init__(self, where: str, values: object) -> None:
        """Wrap `values`; BadInputError when it is no mapping."""
        if not isinstance(values, Mapping):
            raise BadInputError(where, values, "a mapping")
        self.where = where
        self.values = values

    def path(self, name: str) -> str:
        """Return the full path of a field."""
        return f"{self.where}.{name}" if self.where else name

    def __contains__(self, name: str) -> bool:
        """Return whether the field is there and not null."""
        return self.values.get(name) is not None

    def known(self, names: Sequence[str]) -> None:
        """Refuse any field that is not in `names`."""
        for name in self.values:
            if name not in names:
                raise BadInputError(self.path(str(name)), self.values[name], f"only the fields {', '.join(names)}")

    def number(self, name: str, low: float = 0.0, high: float = math.inf, default: float | None = None) -> float:
        """Return a number of low..high; without default the field is required."""
        value = self._get(name, default, "a number")
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            allowed = f"a number of at least {low:g}" if math.isinf(high) else f"a number, {low:g} to {high:g}"
            raise BadInputError(self.path(name), value, allowed)
        return float(value)

    def integer(self, name: str, low: int = 0, high: int = 1 << 40, default: int | None = None) -> int:
        """Return a whole number of low..high; without default the field is required."""
        value = self._get(name, default, "a whole number")
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise BadInputError(self.path(name), value, f"a whole number, {low} to {high}")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """Return a string that is not empty; without default the field is required."""
        value = self._get(name, default, "a string")
        if not isinstance(value, str) or not value:
            raise BadInputError(self.path(name), value, "a string")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """Return true or false."""
        value = self._get(name, default, "true or false")
        if not isinstance(value, bool):
            raise BadInputError(self.path(name), value, "true or false")
        return value

    def inner(self, name: str) -> Fields:
        """Return the mapping in a field."""
        return Fields(self.path(name), self._get(name, None, "a mapping"))

    def each[T](self, name: str, read: Callable[[Fields], T]) -> tuple[T, ...]:
        """Return what `read` makes of each mapping of a list; none where the field is missing."""
        values = self.values.get(name, ())
        if not isinstance(values, list | tuple):
            raise BadInputError(self.path(name), values, "a list of mappings")
        return tuple(read(Fields(f"{self.path(name)}[{index}]", value)) for index, value in enumerate(values))

    def _get(self, name: str, default: object, allowed: str) -> Any:
        value = self.values.get(name, _MISSING)
        if value is _MISSING or value is None:
            if default is None:
                raise BadInputError(self.path(name), None, f"{allowed}; it is required")
            return default
        return value
