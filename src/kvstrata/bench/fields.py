"""A dataclass of a benchmark's file, read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def from_fields[T: DataclassInstance](kind: type[T], form: Mapping[str, Any], lists: Mapping[str, type[Any]]) -> T:
    """Return the dataclass whose fields a file has; `lists` are those that hold dataclasses, by name. More is left out.

    Raises:
        KeyError: a field is missing.
        TypeError: one is of another kind, or not known.
    """
    values = {field.name: form[field.name] for field in fields(kind)}
    return kind(**values | {name: [of(**entry) for entry in values[name]] for name, of in lists.items()})
