"""The document as one HTML page: the verdict, what is wrong, a table for each layer, the tiers' times, the versions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kvstrata.page import html
from kvstrata.page.html import Cell
from kvstrata.page.svg import Bar, bars
from kvstrata.verify import page_measured
from kvstrata.verify.document import CheckRow, Document, StepRow, TiersRow

_STYLE = """
th, td { text-align: left; vertical-align: top; }
td { white-space: normal; overflow-wrap: anywhere; }
td:nth-child(-n+2), td:nth-child(7) { white-space: nowrap; overflow-wrap: normal; }
.pass { color: var(--good); } .skip { color: var(--warn); }
.fail, .error { color: var(--mark); font-weight: 600; } .verdict { font-size: 1.25rem; }
"""
_MARKS = {"pass": "ok", "fail": "FAIL", "skip": "SKIP", "error": "ERROR"}
_VERDICTS = {"ok": ("OK", "pass"), "failed": ("FAILED", "fail"), "could_not_check": ("COULD NOT CHECK", "error")}
_SHOWN = 200
_HEADS = ("", "host", "check", "expected", "seen", "hint", "s")


def render(document: Document) -> str:
    """Return the page; it asks for nothing outside itself."""
    layers = dict.fromkeys(check["layer"] for check in document["checks"])
    return html.page(
        f"kvstrata verify: {document['site'] or 'no site'}",
        [
            _verdict(document),
            html.facts(dict(_facts(document))),
            html.notes("failures", [_line(check) for check in document["failures"]]),
            html.notes("notes", [_line(check) for check in document["skipped"]]),
            *(_layer(layer, [check for check in document["checks"] if check["layer"] == layer]) for layer in layers),
            _tiers(document["tiers"]),
            *page_measured.sections(document),
            _versions(document),
        ],
        _STYLE,
    )


def _verdict(document: Document) -> str:
    word, kind = _VERDICTS[document["verdict"]]
    return f'<p class="verdict {kind}">{word}, exit status {document["exit_code"]}</p>'


def _facts(document: Document) -> Iterator[tuple[str, str]]:
    counts = document["counts"]
    yield (
        "Checks",
        f"{counts['pass']} passed, {counts['fail']} failed, {counts['error']} could not be made, "
        f"{counts['skip']} NOT checked",
    )
    yield "Nodes", f"{len(document['nodes'])}: {', '.join(document['nodes'])}" if document["nodes"] else "none"
    yield "Profile", document["profile"] or "unknown"
    yield "Started", document["started_at"] or "not at all"
    yield "Took", f"{document['duration_s']:.1f} s"
    if document["tiers"] and document["tiers"]["seed"]:
        yield "Seed", document["tiers"]["seed"]


def _line(check: CheckRow) -> str:
    return f"{_MARKS[check['status']]} {check['host']}: {check['what']} ({check['id']}): {check['seen']}"


def _layer(layer: str, checks: Sequence[CheckRow]) -> str:
    rows = [
        (
            Cell(_MARKS[check["status"]], check["status"]),
            check["host"],
            check["what"],
            check["expected"],
            check["seen"],
            # A command is of use where something is to be looked at.
            "" if check["status"] == "pass" else check["hint"],
            f"{check['duration_s']:.2f}",
        )
        for check in checks
    ]
    passed = sum(check["status"] == "pass" for check in checks)
    table = html.table(_HEADS, rows)
    # What is wrong stands above already; of many nodes the rest would fill hundreds of screens.
    shown = table if len(rows) <= _SHOWN else html.folded(f"{len(rows)} checks", table)
    return html.section(f"{layer}: {passed} of {len(checks)} passed", shown)


def _tiers(tiers: TiersRow | None) -> str:
    if tiers is None or not tiers["steps"]:
        return ""
    steps = tiers["steps"]
    when = "this run" if tiers["ran"] else f"proven {tiers['proven_at']}"
    drawn = [
        bars("time to first token, s", [_bar(step, steps[0], step["ttft_s"]) for step in steps], form=".2f"),
        bars("prompt tokens from the external cache", [_bar(step, steps[0], step["hit_tokens"]) for step in steps]),
    ]
    heads = ("prompt", "node", "TTFT s", "against cold", "prompt tokens", "from cache", "of it L1", "of it L2")
    cold = steps[0]["ttft_s"]
    rows = [
        (
            step["name"],
            step["node"],
            f"{step['ttft_s']:.3f}",
            f"{cold / step['ttft_s']:.1f}x faster" if step is not steps[0] and step["ttft_s"] > 0 else "",
            *(str(step[name]) for name in ("prompt_tokens", "hit_tokens", "l1_tokens", "l2_tokens")),
        )
        for step in steps
    ]
    return html.section(f"Time to first token ({when})", html.charts(drawn), html.table(heads, rows))


def _bar(step: StepRow, cold: StepRow, value: float) -> Bar:
    return Bar(f"{step['name']}, {step['node']}", value, [], base=step is cold)


def _versions(document: Document) -> str:
    versions = document["versions"]
    here = {"kvstrata": versions["kvstrata"], "Python": versions["python"]}
    rows = [
        (
            str(found.get("host", "")),
            str(found.get("of", "")),
            ", ".join(f"{name} {value}" for name, value in found.items() if name not in ("host", "of")),
        )
        for found in versions["found"]
    ]
    table = html.table(("host", "said by", "versions"), rows) if rows else ""
    return html.section("Versions", html.facts(here), table)
