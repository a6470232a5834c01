"""The files of EnvironmentFile=, systemd.exec(5): lines NAME=value, quoted as in a shell but without its expansions."""

from __future__ import annotations

import re

from kvstrata.unit_runner.errors import UnitError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPACE = " \t"
# Within double quotes a backslash escapes only these.
_ESCAPED = '"\\`$'


def parse(text: str, file: str) -> dict[str, str]:
    r"""Return the variables of a file; of two the last one counts.

    A line that begins with # or ; is a comment. A value may begin with parts in ' or ", which may have line ends; a
    backslash at the end of a line continues it. Blanks around a value that is not quoted go.

    Raises:
        UnitError: a name is none, or a quote is not closed.
    """
    found: dict[str, str] = {}
    position, line = 0, 1
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end == -1 else end
        head = text[position:end].lstrip(_SPACE + "\r")
        if not head or head[0] in "#;":
            # A comment goes on behind a backslash at its end.
            while text[position:end].endswith("\\") and end < len(text):
                position, end = end + 1, text.find("\n", end + 1)
                end = len(text) if end == -1 else end
            position = end + 1
            continue
        name, equals, _ = head.partition("=")
        name = name.rstrip(_SPACE)
        if not equals:
            # systemd ignores such a line and says so in its log; a line that was meant is worth a stop.
            raise UnitError(f"{file}: {head!r}; allowed: NAME=value, or a comment")
        if not _NAME.fullmatch(name):
            raise UnitError(f"{file}: variable {name!r}; allowed: letters, digits and _, not beginning with a digit")
        value, position = _value(text, text.index("=", position) + 1, file, name)
        found[name] = value
        line += 1
    return found


def _value(text: str, position: int, file: str, name: str) -> tuple[str, int]:
    """Return the value that begins at `position`, and where the next line begins."""
    value, kept = "", 0  # `kept`: so much of the value may not be stripped
    # A quote opens a part at the beginning, or behind another quoted part; elsewhere it is a character.
    fresh = True
    while position < len(text):
        character = text[position]
        position += 1
        if character in "\n\r":
            break
        if character == "\\":
            escaped = text[position : position + 1]
            position += 1
            fresh = False
            if escaped != "\n":
                value += escaped
                kept = len(value)
        elif character in "'\"" and fresh:
            quoted, position = _quoted(text, position, character, file, name)
            value += quoted
            kept = len(value)
        elif character not in _SPACE or not fresh:
            value += character
            fresh = False
    return value[:kept] + value[kept:].rstrip(_SPACE), position


def _quoted(text: str, position: int, quote: str, file: str, name: str) -> tuple[str, int]:
    found = ""
    while position < len(text):
        character = text[position]
        position += 1
        if character == quote:
            return found, position
        if character == "\\" and quote == '"':
            following = text[position : position + 1]
            position += 1
            if following in _ESCAPED and following:
                found += following
            elif following != "\n":
                found += "\\" + following
        else:
            found += character
    raise UnitError(f"{file}: the value of {name} has a {quote} that is not closed")
