"""Whatever a document holds: its files are well-formed, and comparing two of them contradicts itself nowhere."""

from __future__ import annotations

import json
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from kvstrata.verify import junit, page, schema
from kvstrata.verify.changes import lines
from kvstrata.verify.check import Layer
from kvstrata.verify.compare import Kind, compare
from kvstrata.verify.document import CheckRow, Document, StatusName, StepRow
from kvstrata.verify.result import could_not_check
from tests.verify.fakes.junit_schema import problems
from tests.verify.test_verify_page import Parsed

# Surrogates too: a node's bytes may have been decoded into them.
TEXT = st.text(st.characters(), max_size=12) | st.sampled_from(["\ud800", "]]>", "</td>", "a (seed s)"])
NODES = ("n1", "n2", "n3")
IDS = [f"{layer}.{name}" for layer in Layer for name in ("one", "two", "all", "deadline")] + ["host.ssh", "tiers.proof"]


@st.composite
def checks(draw: st.DrawFn) -> CheckRow:
    check_id = draw(st.sampled_from(IDS))
    layer = check_id.partition(".")[0]
    return {
        "id": check_id,
        "layer": layer,
        "host": draw(st.sampled_from([*NODES, "site"])),
        "what": draw(st.sampled_from([f"{layer} checks", "d0"]) | TEXT),
        "expected": draw(TEXT),
        "seen": draw(TEXT),
        "status": draw(st.sampled_from(get_args(StatusName))),
        "hint": draw(TEXT),
        "duration_s": draw(st.floats(0, 1000)),
        "data": {},
    }


@st.composite
def documents(draw: st.DrawFn) -> Document:
    made = could_not_check("x", "why")
    made["site"] = "site"
    made["started_at"] = "2026-11-24T20:00:00+00:00"
    made["nodes"] = draw(st.lists(st.sampled_from(NODES), unique=True))
    made["checks"] = draw(st.lists(checks(), max_size=8))
    steps: list[StepRow] = [
        {
            "name": name,
            "node": draw(TEXT),
            "ttft_s": draw(st.floats(0, 100)),
            "prompt_tokens": draw(st.integers(0, 5000)),
            "hit_tokens": draw(st.integers(0, 5000)),
            "l1_tokens": 0,
            "l2_tokens": 0,
        }
        for name in draw(st.lists(st.sampled_from(["cold", "after restart", "other node"]), unique=True))
    ]
    seed = draw(st.none() | TEXT)
    ran = draw(st.booleans())
    made["tiers"] = {"ran": ran, "proven_at": None, "seed": seed, "fingerprint": None, "steps": steps}
    made["versions"]["found"] = [{"host": "n1", "of": draw(TEXT), "version": draw(TEXT | st.none())}]
    return made


@settings(max_examples=80, deadline=None)
@given(documents())
def test_every_document_fits_the_schema_and_makes_well_formed_files(document: Document) -> None:
    assert schema.misfits(json.loads(json.dumps(document))) == []
    assert problems(junit.render(document)) == []
    Parsed(page.render(document))
    junit.render(document).encode()
    page.render(document).encode()


@settings(max_examples=80, deadline=None)
@given(documents(), documents())
def test_what_changed_one_way_changed_back_the_other_way(one: Document, other: Document) -> None:
    assert not compare(one, one, 0).any
    there, back = compare(one, other), compare(other, one)
    passes = {(c.id, c.host, c.what) for c in back.checks if c.kind in (Kind.PASSES, Kind.UNCHECKED, Kind.VANISHED)}
    turned = [c for c in there.checks if c.kind is Kind.FAILS and c.before is not None]
    assert all((c.id, c.host, c.what) in passes for c in turned)
    assert {t.step for t in there.times} == {t.step for t in back.times}
    assert list(lines(there))
