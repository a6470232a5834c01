"""Reading a value out of a JSON document, with errors that name its place there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class InvalidClusterError(ValueError):
    """The document is not a cluster model; the message names the path in it, never a secret."""


@dataclass(frozen=True)
class At:
    """A value and where in the document it stands."""

    path: str
    value: Any

    def __getitem__(self, key: str) -> At:
        """The value of a key, which must be there."""
        path = f"{self.path}.{key}" if self.path else key
        if not isinstance(self.value, dict):
            raise InvalidClusterError(f"{self.path or 'document'}: expected an object, got {_kind(self.value)}")
        if key not in self.value:
            raise InvalidClusterError(f"{path}: missing")
        return At(path, self.value[key])

    def get(self, key: str, default: object) -> At:
        """The value of a key that older documents lack."""
        return self[key] if self.has(key) else At(f"{self.path}.{key}", default)

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return isinstance(self.value, dict) and key in self.value

    def _expect(self, wanted: type | tuple[type, ...], name: str) -> Any:
        # bool is an int in Python, but never a port.
        wrong_bool = isinstance(self.value, bool) and wanted is not bool
        if wrong_bool or not isinstance(self.value, wanted):
            # The kind and not the value: the value may be a password.
            raise InvalidClusterError(f"{self.path}: expected {name}, got {_kind(self.value)}")
        return self.value

    def text(self) -> str:
        """A string that is not empty."""
        text: str = self._expect(str, "a string")
        if not text:
            raise InvalidClusterError(f"{self.path}: empty")
        return text

    def integer(self, low: int = 0, high: int | None = None) -> int:
        """A whole number from `low` to `high`."""
        number: int = self._expect(int, "a whole number")
        if number < low or (high is not None and number > high):
            allowed = f"{low}..{high}" if high is not None else f"at least {low}"
            raise InvalidClusterError(f"{self.path}: {number}, allowed is {allowed}")
        return number

    def port(self) -> int:
        """The number of a TCP port."""
        return self.integer(1, 65535)

    def seconds(self) -> float:
        """A time of more than 0 s."""
        number = float(self._expect((int, float), "a number of seconds"))
        if number <= 0:
            raise InvalidClusterError(f"{self.path}: {number:g}, allowed is more than 0")
        return number

    def amount(self) -> float:
        """A number of 0 or more."""
        number = float(self._expect((int, float), "a number"))
        if number < 0:
            raise InvalidClusterError(f"{self.path}: {number:g}, allowed is 0 or more")
        return number

    def share(self) -> float:
        """A number from 0 to 1."""
        number = self.amount()
        if number > 1:
            raise InvalidClusterError(f"{self.path}: {number:g}, allowed is 0 to 1")
        return number

    def mapping(self) -> dict[str, Any]:
        """An object as it is."""
        found: dict[str, Any] = self._expect(dict, "an object")
        return found

    def flag(self) -> bool:
        """True or false."""
        flag: bool = self._expect(bool, "true or false")
        return flag

    def choice[E: StrEnum](self, kind: type[E]) -> E:
        """One of the values of `kind`."""
        text = self.text()
        try:
            return kind(text)
        except ValueError:
            allowed = ", ".join(member.value for member in kind)
            raise InvalidClusterError(f"{self.path}: {text!r}, allowed is one of {allowed}") from None

    def only(self, names: frozenset[str]) -> None:
        """Refuse a key that nothing reads: it would be a limit that nobody keeps."""
        unknown = sorted(self.mapping().keys() - names)
        if unknown:
            raise InvalidClusterError(f"{self.path}.{unknown[0]}: unknown, allowed are {', '.join(sorted(names))}")

    def optional[T](self, read: Callable[[At], T]) -> T | None:
        """What `read` makes of it; None where it is null."""
        return None if self.value is None else read(self)

    def each[T](self, read: Callable[[At], T]) -> list[T]:
        """What `read` makes of each item of a list."""
        items = self._expect(list, "a list")
        return [read(At(f"{self.path}[{index}]", item)) for index, item in enumerate(items)]


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "an object", list: "a list", str: "a string", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def path_of(at: At) -> Path:
    """A path, `~` being the home of whoever reads it."""
    return Path(at.text()).expanduser()
