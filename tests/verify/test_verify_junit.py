"""The JUnit file: of JUnit's form, with every check in it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from kvstrata.cluster import TiersPolicy
from kvstrata.verify import junit
from kvstrata.verify.document import Document
from kvstrata.verify.result import could_not_check
from tests.verify.fakes.junit_schema import problems
from tests.verify.fakes.site import Code, Site
from tests.verify.test_verify_run import run


@pytest.fixture
def broken(site: Site) -> Document:
    """A run in which every status occurs."""
    site.engine["node1"].routes["/health"] = lambda body: Code(503)
    site.engine["node2"].routes["/v1/models"] = lambda body: ["no object"]
    document = run(site).as_json()
    assert {check["status"] for check in document["checks"]} == {"pass", "fail", "skip", "error"}
    return document


def cases(text: str) -> list[ET.Element]:
    return list(ET.fromstring(text).iter("testcase"))  # noqa: S314 - our own text


def test_the_file_is_of_the_common_form_and_its_numbers_are_right(broken: Document) -> None:
    assert problems(junit.render(broken)) == []
    assert problems(junit.render(could_not_check("inventories/x", "no such <inventory> & more"))) == []


def test_the_strict_reader_sees_what_is_wrong() -> None:
    suite = '<testsuite name="a" tests="1" failures="0" errors="0" time="1">'
    good = f'<testsuites>{suite}<testcase name="b" classname="c" time="1"/></testsuite>'
    assert problems(good + "</testsuites>") == []
    for old, new in (
        ('tests="1"', 'tests="2"'),
        ('tests="1"', 'tests="1" skipped="1"'),
        ('tests="1"', 'tests="1" colour="red"'),
        ('tests="1"', 'tests="1" timestamp="2026-11-24T00:00:00+00:00"'),
        ('time="1">', 'time="3">'),
        (' classname="c"', ""),
        ("</testsuite>", "<properties/></testsuite>"),
    ):
        assert problems(good.replace(old, new) + "</testsuites>"), new


def test_there_is_a_suite_for_each_layer_and_a_case_for_each_check(broken: Document) -> None:
    root = ET.fromstring(junit.render(broken))  # noqa: S314 - our own text
    assert [suite.get("name") for suite in root] == list(dict.fromkeys(check["layer"] for check in broken["checks"]))
    told = [(case.get("classname"), str(case.get("name")).partition(":")[0]) for case in root.iter("testcase")]
    assert told == [(check["host"], check["id"]) for check in broken["checks"]]


def test_a_failure_has_expected_seen_and_hint_and_a_skip_its_reason(broken: Document) -> None:
    found = {str(case.get("name")).partition(":")[0]: case for case in cases(junit.render(broken)) if len(case)}
    bad = [case for case in cases(junit.render(broken)) if case.find("failure") is not None]
    assert [(case.get("classname"), case.find("failure").get("message")) for case in bad] == [  # type: ignore[union-attr]
        ("node1", "/health answers 503")
    ]
    lines = str(bad[0].findtext("failure")).splitlines()
    assert lines[:2] == ["expected: /health answers 200", "seen: /health answers 503"]
    assert lines[2].startswith("hint: ssh root@10.9.0.11 journalctl -u vllm@0.service")
    skipped = found["tiers.proof"].find("skipped")
    assert skipped is not None
    assert str(skipped.get("message")).startswith("NOT CHECKED: --tiers never")


def test_versions_and_seed_are_properties(site: Site) -> None:
    root = ET.fromstring(junit.render(run(site, policy=TiersPolicy.ALWAYS).as_json()))  # noqa: S314 - our own text
    found = {suite.get("name"): {p.get("name"): p.get("value") for p in suite.iter("property")} for suite in root}
    assert found["tiers"]["seed"] == "seed-1"
    assert found["tiers"]["site"] == "test"
    assert found["engine"]["node1: vllm@0.service 10.9.0.11:8000 health"] == "version 0.31.0"
    assert not [name for name in found["router"] if str(name).startswith("node1")]


def test_a_case_has_the_same_name_in_every_run(site: Site) -> None:
    document = run(site, policy=TiersPolicy.ALWAYS).as_json()
    other = json.loads(json.dumps(document).replace("seed-1", "seed-2"))
    assert "seed-2" in other["tiers"]["seed"]
    names = [case.get("name") for case in cases(junit.render(document))]
    assert names == [case.get("name") for case in cases(junit.render(other))]
    assert "tiers.cold: new prompt on node1" in names
    assert len(set(zip(names, [case.get("classname") for case in cases(junit.render(document))], strict=True))) == len(
        names
    )


def test_what_xml_cannot_hold_does_no_harm(site: Site) -> None:
    site.engine["node1"].routes["/v1/models"] = lambda body: {
        "data": [{"id": "\x1b[31m]]>\x00\ud800&<x>", "max_model_len": 1}]
    }
    text = junit.render(run(site).as_json())
    assert problems(text) == []
    assert "[31m]]&gt;" in text
    text.encode()
