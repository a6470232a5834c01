"""The document's form: its schema, its page, and what the verifier prints are one and the same."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import fields
from typing import Any, get_type_hints

import jsonschema
import pytest

from kvstrata.cluster import TiersPolicy
from kvstrata.paths import PROJECT
from kvstrata.verify import document, schema
from kvstrata.verify.check import Check
from kvstrata.verify.result import could_not_check
from kvstrata.verify.tiers.record import Step
from tests.verify.fakes.site import Site
from tests.verify.test_verify_run import run

# The heading of each object's table in docs/verify.md.
TABLES = {
    "Field": document.Document,
    "Field of a check": document.CheckRow,
    "Field of `tiers`": document.TiersRow,
    "Field of a step": document.StepRow,
    "Field of a timing": document.TimingRow,
    "Field of `versions`": document.VersionsRow,
}


def test_the_published_schema_is_the_one_of_the_code() -> None:
    assert (PROJECT / "docs" / "verify.schema.json").read_text() == schema.rendered()
    jsonschema.Draft202012Validator.check_schema(schema.json_schema())


@pytest.mark.parametrize("heading", TABLES)
def test_the_page_explains_exactly_the_fields_there_are(heading: str) -> None:
    page = (PROJECT / "docs" / "verify.md").read_text()
    (table,) = re.findall(rf"^\| {re.escape(heading)} \| Holds \|\n\|---\|---\|\n((?:\|.*\n)+)", page, re.MULTILINE)
    explained = [name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.split("|")[1])]
    assert explained == list(get_type_hints(TABLES[heading]))
    for line in table.splitlines():
        assert line.split("|")[2].strip()


def test_the_rows_hold_what_the_dataclasses_hold() -> None:
    assert list(document.CheckRow.__annotations__) == [field.name for field in fields(Check)]
    assert list(document.StepRow.__annotations__) == [field.name for field in fields(Step)]


def test_what_the_verifier_prints_fits_the_schema(site: Site) -> None:
    site.nodes["node2"].shell.unreachable = "no answer"
    for printed in (run(site, policy=TiersPolicy.ALWAYS).as_json(), could_not_check("inventories/x", "why")):
        read = json.loads(json.dumps(printed))
        jsonschema.validate(read, schema.json_schema())
        assert schema.misfits(read) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 3}, "schema is 3; allowed: 2"),
        ({"schema": True}, "schema is true; allowed: 2"),
        ({"duration_s": "1"}, "duration_s is no number"),
        ({"duration_s": True}, "duration_s is no number"),
        ({"nodes": ["a", 1]}, "nodes[1] is no string"),
        ({"site": 7}, "site is no string"),
        ({"more": 7}, "more is unknown"),
        ({"checks": [{}]}, "checks[0].id is missing"),
        ({"tiers": {"ran": 1}}, "tiers.ran is no boolean"),
        ({"verdict": "good"}, 'verdict is "good"; allowed: ok, failed, could_not_check'),
    ],
)
def test_a_misfit_is_named_by_its_field(change: dict[str, Any], said: str) -> None:
    spoilt = {**copy.deepcopy(dict(could_not_check("x", "why"))), **change}
    assert said in schema.misfits(json.loads(json.dumps(spoilt)))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spoilt, schema.json_schema())


def test_what_is_no_object_and_what_lacks_a_field_is_a_misfit() -> None:
    assert schema.misfits([]) == ["document is no object"]
    assert "verdict is missing" in schema.misfits({})
