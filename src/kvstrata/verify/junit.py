"""The document as JUnit XML: a suite for each layer, a case for each check. Continuous integration reads it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence

from kvstrata.page.text import fit
from kvstrata.verify.document import CheckRow, Document, stable

NAME = "kvstrata verify"


def render(document: Document) -> str:
    """Return the file. Names of cases are the same from run to run: the proof's seed is a property, not in them."""
    checks = document["checks"]
    root = ET.Element("testsuites", {"name": NAME, **_numbers(checks, document["duration_s"])})
    for layer in dict.fromkeys(check["layer"] for check in checks):
        root.append(_suite(document, layer, [check for check in checks if check["layer"] == layer]))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(document: Document, layer: str, checks: Sequence[CheckRow]) -> ET.Element:
    attributes = {
        "name": layer,
        **_numbers(checks, sum(check["duration_s"] for check in checks)),
        "skipped": str(sum(check["status"] == "skip" for check in checks)),
    }
    if document["started_at"]:
        # The schema knows no offset; the document's time is UTC.
        attributes["timestamp"] = document["started_at"].partition("+")[0]
    suite = ET.Element("testsuite", attributes)
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(document, checks):
        ET.SubElement(properties, "property", {"name": fit(name), "value": fit(value)})
    seed = document["tiers"] and document["tiers"]["seed"]
    for check in checks:
        suite.append(_case(check, seed or None))
    return suite


def _case(check: CheckRow, seed: str | None) -> ET.Element:
    name = f"{check['id']}: {stable(check['what'], seed)}"
    case = ET.Element(
        "testcase", {"name": fit(name), "classname": fit(check["host"]), "time": f"{check['duration_s']:.3f}"}
    )
    seen = fit(check["seen"])
    match check["status"]:
        case "skip":
            ET.SubElement(case, "skipped", {"message": seen})
        case "fail" | "error":
            tag = "failure" if check["status"] == "fail" else "error"
            told = ET.SubElement(case, tag, {"message": seen, "type": fit(check["id"])})
            told.text = fit("\n".join(f"{key}: {text}" for key, text in _details(check)))
        case "pass":
            ET.SubElement(case, "system-out").text = seen
    return case


def _details(check: CheckRow) -> Iterator[tuple[str, str]]:
    yield "expected", check["expected"]
    yield "seen", check["seen"]
    yield "hint", check["hint"]


def _numbers(checks: Sequence[CheckRow], seconds: float) -> dict[str, str]:
    return {
        "tests": str(len(checks)),
        "failures": str(sum(check["status"] == "fail" for check in checks)),
        "errors": str(sum(check["status"] == "error" for check in checks)),
        "time": f"{seconds:.3f}",
    }


def _properties(document: Document, checks: Sequence[CheckRow]) -> Iterator[tuple[str, str]]:
    """What the whole run was, then what this layer's checks learned of versions."""
    yield "verdict", document["verdict"]
    if document["site"] is not None:
        yield "site", document["site"]
    if document["profile"] is not None:
        yield "profile", document["profile"]
    if document["tiers"] and document["tiers"]["seed"]:
        yield "seed", document["tiers"]["seed"]
    yield "kvstrata", document["versions"]["kvstrata"]
    yield "python", document["versions"]["python"]
    asked = {(check["host"], check["what"]) for check in checks}
    for found in document["versions"]["found"]:
        if (found.get("host"), found.get("of")) in asked:
            said = {name: value for name, value in found.items() if name not in ("host", "of")}
            yield f"{found['host']}: {found['of']}", ", ".join(f"{name} {value}" for name, value in said.items())
