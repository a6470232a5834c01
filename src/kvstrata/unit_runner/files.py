"""Unit files and their drop-ins, as systemd.unit(5) and systemd.syntax(7) say: where they are, and their lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kvstrata.unit_runner.errors import UnitError

FOLDERS = (
    Path("/etc/systemd/system"),
    Path("/run/systemd/system"),
    Path("/usr/local/lib/systemd/system"),
    Path("/usr/lib/systemd/system"),
)
"""Where systemd looks, the first wins."""

_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]+\.(service|target|mount|timer|socket|path|slice|scope|swap|automount|device)")


@dataclass(frozen=True)
class Line:
    """One directive, and where it stands."""

    section: str
    name: str
    value: str
    """As written, with continued lines joined; empty resets a list."""
    where: str
    """FILE:LINE."""


@dataclass(frozen=True)
class UnitFile:
    """A unit: its name, its own file and drop-ins, and all their lines in the order in which they count."""

    name: str
    files: tuple[Path, ...]
    lines: tuple[Line, ...] = field(repr=False)

    @property
    def kind(self) -> str:
        """Its type: service, target, ..."""
        return self.name.rpartition(".")[2]

    @property
    def template(self) -> str | None:
        """The name of the template that it is an instance of."""
        prefix, at, _ = self.name.rpartition(".")[0].partition("@")
        return f"{prefix}@.{self.kind}" if at else None


def find(name: str, folders: Sequence[Path] = FOLDERS) -> UnitFile | None:
    """Return a unit by its name, None where there is no such file.

    Raises:
        UnitError: the name is none of a unit, the unit is masked, or a file has a line that is no directive.
    """
    if not _NAME.fullmatch(name) or "@." in name:
        raise UnitError(f"{name!r} is no unit; allowed: NAME.service, or NAME@INSTANCE.service")
    unit = UnitFile(name, (), ())
    candidates = [name] + ([unit.template] if unit.template else [])
    fragment = next((f / c for c in candidates for f in folders if _there(f / c)), None)
    if fragment is None:
        return None
    if fragment.is_symlink() and fragment.resolve() == Path("/dev/null"):
        raise UnitError(f"{name} is masked by {fragment}")
    files = (fragment, *_drop_ins(unit, folders))
    return UnitFile(name, files, tuple(line for file in files for line in parse(file.read_text(), str(file))))


def parse(text: str, file: str) -> Iterator[Line]:
    """Yield the directives of a unit file; comments and empty lines go, continued lines are joined by a space.

    Raises:
        UnitError: something stands there that is no section, directive or comment.
    """
    section, pending, start = "", "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        stripped = raw.strip()
        # A comment within a continued line is left out, and the line goes on behind it.
        if stripped[:1] in ("#", ";") or (not stripped and not pending):
            continue
        start = start if pending else number
        if raw.rstrip().endswith("\\"):
            pending += raw.rstrip()[:-1].lstrip() + " " if not pending else raw.rstrip()[:-1] + " "
            continue
        whole, pending = (pending + raw if pending else raw).strip(), ""
        where = f"{file}:{start}"
        if whole.startswith("[") and whole.endswith("]"):
            section = whole[1:-1]
            continue
        name, equals, value = whole.partition("=")
        if not equals or not section:
            raise UnitError(f"{where}: {whole!r}; allowed: [Section], then Name=value")
        yield Line(section, name.strip(), value.strip(), where)
    if pending.strip():
        raise UnitError(f"{file}:{start}: ends within a continued line")


def _drop_ins(unit: UnitFile, folders: Sequence[Path]) -> list[Path]:
    """Return the *.conf for a unit by name; of two of one name the more particular, then the first folder, wins."""
    stem = unit.name.rpartition(".")[0]
    names = [f"{unit.name}.d"]
    if unit.template:
        names.append(f"{unit.template}.d")
    # foo-.service.d is for all foo-*.service.
    dashes = [place for place, character in enumerate(stem) if character == "-"]
    names += [f"{stem[: place + 1]}.{unit.kind}.d" for place in reversed(dashes) if place + 1 < len(stem)]
    names.append(f"{unit.kind}.d")
    found: dict[str, Path] = {}
    for name in names:
        for folder in folders:
            if (folder / name).is_dir():
                for file in (folder / name).glob("*.conf"):
                    found.setdefault(file.name, file)
    return [found[name] for name in sorted(found) if found[name].resolve() != Path("/dev/null")]


def _there(path: Path) -> bool:
    return path.is_file() or path.is_symlink()
