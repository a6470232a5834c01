"""Words, variables, specifiers and values of directives, as systemd's manual pages have them."""

from __future__ import annotations

import resource

import pytest

from kvstrata.unit_runner import env_file, specifiers, values, words
from kvstrata.unit_runner.errors import UnitError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  a   b ", ["a", "b"]),
        ('"two words" \'as "they" are\'', ["two words", 'as "they" are']),
        ('""', [""]),
        ('pre"quo ted"post', ["prequo tedpost"]),
        (r"a\tb \x41 \101 A \s|", ["a\tb", "A", "A", "A", " |"]),
        (r"it\'s", ["it's"]),
    ],
)
def test_words_are_split_and_unquoted(text: str, expected: list[str]) -> None:
    assert words.split(text, "x") == expected


@pytest.mark.parametrize("text", ['"open', "'open", "end\\", r"\q", r"\x4"])
def test_words_that_systemd_would_not_take_are_refused_with_their_place(text: str) -> None:
    with pytest.raises(UnitError, match=r"f\.service:3"):
        words.split(text, "f.service:3")


def test_a_lone_semicolon_is_between_commands_and_an_escaped_one_is_a_word() -> None:
    assert list(words.commands(words.split(r"a b ; c \; d", "x"))) == [["a", "b"], ["c", ";", "d"]]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("$LIST", ["one", "two"]),
        ("${LIST}", ["one two"]),
        ("a${LIST}b", ["aone twob"]),
        ("$NONE", []),
        ("${NONE}", [""]),
        ("x${NONE}y", ["xy"]),
        ("$$LIST", ["$LIST"]),
        ("mid$LIST", ["mid$LIST"]),
        ("$QUOTED", ["a b", "c"]),
        ("$", ["$"]),
    ],
)
def test_variables_are_replaced_as_systemd_service_5_says(word: str, expected: list[str]) -> None:
    environment = {"LIST": "one two", "QUOTED": '"a b" c'}
    assert words.substitute([word], environment, "x") == expected


def test_specifiers_of_an_instance() -> None:
    known = specifiers.of_unit(r"prefix-name@a-b\x2dc.service")
    assert specifiers.expand("%i|%I|%n|%N|%p|%j|%t|%%", known, "x") == (
        r"a-b\x2dc|a/b-c|prefix-name@a-b\x2dc.service|prefix-name@a-b\x2dc|prefix-name|name|/run|%"
    )


@pytest.mark.parametrize("text", ["%q", "100%"])
def test_a_specifier_that_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(UnitError, match="specifier"):
        specifiers.expand(text, specifiers.of_unit("a.service"), "x")


def test_an_environment_file_is_read_as_systemd_reads_it() -> None:
    text = """\
# A comment \\
NOT=a variable
; another
PLAIN =  with blanks\x20\x20
SINGLE='as $it `stands` \\n'
DOUBLE="an \\"escaped\\" \\$dollar, \\n stays"
PARTS=one" two "'three'\\ four
JOINED="one "'two ' "three"
CONTINUED=begun \\
 and ended
LINES="first
second"
EMPTY=
PLAIN=last
HASH=a#b
"""
    assert env_file.parse(text, "f") == {
        "PLAIN": "last",
        "SINGLE": "as $it `stands` \\n",
        "DOUBLE": 'an "escaped" $dollar, \\n stays',
        "PARTS": "one\" two \"'three' four",
        "JOINED": "one two three",
        "CONTINUED": "begun  and ended",
        "LINES": "first\nsecond",
        "EMPTY": "",
        "HASH": "a#b",
    }


@pytest.mark.parametrize("text", ["no variable", "1A=b", 'A="open', "A-B=c"])
def test_an_environment_file_with_something_else_is_refused(text: str) -> None:
    with pytest.raises(UnitError, match="of-the-file"):
        env_file.parse(text, "of-the-file")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2", 2), ("1min 30s", 90), ("2h", 7200), ("500ms", 0.5), ("1.5", 1.5), ("infinity", values.INFINITY)],
)
def test_spans_of_time(text: str, expected: float) -> None:
    assert values.seconds(text, "x") == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "soon", "2 parsecs", "-1", "1 2x"])
def test_what_is_no_span_of_time_is_refused(text: str) -> None:
    with pytest.raises(UnitError):
        values.seconds(text, "x")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("LimitNOFILE", "1024", (1024, 1024)),
        ("LimitNOFILE", "1024:4096", (1024, 4096)),
        ("LimitMEMLOCK", "64M", (64 << 20, 64 << 20)),
        ("LimitMEMLOCK", "infinity", (resource.RLIM_INFINITY, resource.RLIM_INFINITY)),
        ("LimitSTACK", "8M:infinity", (8 << 20, resource.RLIM_INFINITY)),
        ("LimitCPU", "1min", (60, 60)),
        ("LimitRTTIME", "1s", (1_000_000, 1_000_000)),
        ("LimitNICE", "+5", (15, 15)),
    ],
)
def test_limits(name: str, text: str, expected: tuple[int, int]) -> None:
    assert values.limit(name, text, "x") == expected


@pytest.mark.parametrize(
    ("name", "text"), [("LimitNOFILE", "10:5"), ("LimitNOFILE", "1K"), ("LimitNOFILE", "infinity:5")]
)
def test_limits_that_cannot_be_meant_are_refused(name: str, text: str) -> None:
    with pytest.raises(UnitError):
        values.limit(name, text, "x")
