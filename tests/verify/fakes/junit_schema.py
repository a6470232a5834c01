"""The JUnit form that most readers share, stricter than Jenkins' junit-10.xsd: numbers are numbers, and they add up."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

COUNT, SECONDS, TEXT = r"\d+", r"\d+(\.\d+)?", r"(?s).*"
TIME = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}"

# Element: attributes it must have, attributes it may have, children in their order with how many there may be.
FORMS: dict[str, tuple[dict[str, str], dict[str, str], dict[str, tuple[int, float]]]] = {
    "testsuites": (
        {},
        {"name": TEXT, "time": SECONDS, "tests": COUNT, "failures": COUNT, "errors": COUNT},
        {"testsuite": (0, float("inf"))},
    ),
    "testsuite": (
        {"name": TEXT, "tests": COUNT, "failures": COUNT, "errors": COUNT},
        {
            "time": SECONDS,
            "skipped": COUNT,
            "timestamp": TIME,
            "hostname": TEXT,
            "id": TEXT,
            "package": TEXT,
        },
        {
            "properties": (0, 1),
            "testcase": (0, float("inf")),
            "system-out": (0, 1),
            "system-err": (0, 1),
        },
    ),
    "properties": ({}, {}, {"property": (1, float("inf"))}),
    "property": ({"name": TEXT, "value": TEXT}, {}, {}),
    "testcase": (
        {"name": r"(?s).+", "classname": r"(?s).+"},
        {"time": SECONDS},
        {
            "skipped": (0, 1),
            "error": (0, float("inf")),
            "failure": (0, float("inf")),
            "system-out": (0, float("inf")),
            "system-err": (0, float("inf")),
        },
    ),
    "skipped": ({}, {"message": TEXT}, {}),
    "error": ({}, {"type": TEXT, "message": TEXT}, {}),
    "failure": ({}, {"type": TEXT, "message": TEXT}, {}),
    "system-out": ({}, {}, {}),
    "system-err": ({}, {}, {}),
}


def problems(text: str) -> list[str]:
    """Return what is wrong with the file; nothing when it is right."""
    root = ET.fromstring(text)  # noqa: S314 - our own text
    if root.tag != "testsuites":
        return [f"the root is {root.tag}"]
    return [*_form(root), *_counts(root)]


def _form(element: ET.Element) -> Iterator[str]:
    must, may, children = FORMS[element.tag]
    for name in must:
        if name not in element.attrib:
            yield f"{element.tag} lacks {name}"
    for name, value in element.attrib.items():
        form = {**must, **may}.get(name, "")
        if not form or not re.fullmatch(form, value):
            yield f"{element.tag} has {name}={value!r}"
    tags = [child.tag for child in element]
    order = [name for name in children for _ in range(tags.count(name))]
    if tags != order:
        yield f"{element.tag} holds {tags}"
    for name, (least, most) in children.items():
        if not least <= tags.count(name) <= most:
            yield f"{element.tag} holds {tags.count(name)} of {name}"
    if children and (element.text or "").strip():
        yield f"{element.tag} holds text"
    for child in element:
        if child.tag in FORMS:
            yield from _form(child)


def _counts(root: ET.Element) -> Iterator[str]:
    """Every number is what one gets by counting."""
    for element in (root, *root.iter("testsuite")):
        counted = {
            "tests": len(list(element.iter("testcase"))),
            "failures": len(list(element.iter("failure"))),
            "errors": len(list(element.iter("error"))),
            "skipped": len(list(element.iter("skipped"))),
        }
        for name, number in counted.items():
            if name in element.attrib and int(element.attrib[name]) != number:
                yield f"{element.tag} says {name}={element.attrib[name]}, there are {number}"
    for suite in root.iter("testsuite"):
        times = sum(float(case.attrib["time"]) for case in suite.iter("testcase"))
        if abs(float(suite.attrib["time"]) - times) > 0.01:
            yield f"testsuite says time={suite.attrib['time']}, its cases sum up to {times:.3f}"
