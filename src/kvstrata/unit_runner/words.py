"""Words of a directive and their variables, as systemd.syntax(7) and systemd.service(5), "Command lines", have them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from kvstrata.unit_runner.errors import UnitError

_SPACE = " \t\n\r"
_SIMPLE = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    '"': '"',
    "'": "'",
    "s": " ",
}
_NUMBERS = {"x": (2, 16), "u": (4, 16), "U": (8, 16)}
_BRACED = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def split(text: str, where: str, *, retain_escapes: bool = False) -> list[str]:
    r"""Return the words of `text`: separated by blanks, quoted with ' or ", with the escapes of C.

    Args:
        text: the value of a directive.
        where: its place, for errors.
        retain_escapes: leave a backslash as it is, but for quotes and itself.

    Raises:
        UnitError: a quote is not closed, or an escape is none.
    """
    words: list[str] = []
    word: list[str] | None = None
    quote, position = "", 0
    while position < len(text):
        character = text[position]
        position += 1
        if character == "\\":
            word = word if word is not None else []
            made, position = _escape(text, position, where, retain=retain_escapes)
            word.append(made)
        elif quote:
            if character == quote:
                quote = ""
            else:
                (word := word if word is not None else []).append(character)
        elif character in "'\"":
            quote, word = character, word if word is not None else []
        elif character in _SPACE:
            if word is not None:
                words.append("".join(word))
            word = None
        else:
            (word := word if word is not None else []).append(character)
    if quote:
        raise UnitError(f"{where}: {text!r} has a quote that is not closed")
    return words + (["".join(word)] if word is not None else [])


def _escape(text: str, position: int, where: str, *, retain: bool) -> tuple[str, int]:
    letter = text[position : position + 1]
    if not letter:
        raise UnitError(f"{where}: {text!r} ends with a backslash")
    if letter == ";":
        return "\\;", position + 1
    if letter in _SIMPLE:
        return _SIMPLE[letter], position + 1
    if letter in _NUMBERS:
        length, base = _NUMBERS[letter]
        digits = text[position + 1 : position + 1 + length]
        if re.fullmatch(f"[0-9a-fA-F]{{{length}}}", digits):
            return chr(int(digits, base)), position + 1 + length
    elif re.fullmatch("[0-3][0-7]{2}", text[position : position + 3]):
        return chr(int(text[position : position + 3], 8)), position + 3
    if retain:
        return "\\" + letter, position + 1
    raise UnitError(f"{where}: \\{letter} in {text!r} is no escape of systemd.syntax(7)")


def commands(words: Sequence[str]) -> Iterator[list[str]]:
    r"""Yield the commands of a line: a lone `;` is between two of them, `\;` stands for itself."""
    command: list[str] = []
    for word in words:
        if word == ";":
            yield command
            command = []
        else:
            command.append(";" if word == "\\;" else word)
    yield command


def substitute(argv: Sequence[str], environment: Mapping[str, str], where: str) -> list[str]:
    """Return the arguments with the variables of the environment.

    `$NAME` as a word of its own becomes as many words as the variable has, none where it is not set. `${NAME}` within a
    word is replaced as it is, by nothing where it is not set; `$$` is a dollar. Any other dollar stays.
    """
    found: list[str] = []
    for word in argv:
        if word.startswith("$") and word[1:2] not in ("{", "$", ""):
            found += split(environment.get(word[1:], ""), f"{where}: ${word[1:]}", retain_escapes=True)
        else:
            found.append(_BRACED.sub(lambda match: environment.get(match[1], "") if match[1] else "$", word))
    return found
