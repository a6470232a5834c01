"""docs/drives.md lists every reason of the guard as the code has it, and nothing else."""

from __future__ import annotations

import re

from kvstrata.lab.guardfuzz.code import kvstrata_blockcontent, kvstrata_reasons
from kvstrata.paths import PROJECT

PAGE = (PROJECT / "docs" / "drives.md").read_text()
GUARD = PAGE[PAGE.index("## The guard\n") : PAGE.index("## How a drive is written to\n")]


def listed(part: str) -> dict[str, str]:
    return dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", part, re.MULTILINE))


def test_every_reason_is_listed_on_the_side_of_the_token_where_it_belongs() -> None:
    absolute, content = GUARD.split("What it holds.")
    reasons = kvstrata_reasons.REASONS
    assert listed(absolute) == {name: each.means for name, each in reasons.items() if not each.content}
    assert listed(content) == {name: each.means for name, each in reasons.items() if each.content}


def test_the_figures_of_what_is_read_are_the_codes() -> None:
    assert f"the last {kvstrata_blockcontent.END_BYTES >> 20} MiB" in GUARD
    assert f"{kvstrata_blockcontent.SAMPLES} blocks of {kvstrata_blockcontent.SAMPLE_BYTES >> 10} KiB" in GUARD
    # Whatever fills two of the equal parts is found: the page says a thousandth.
    assert 2 / kvstrata_blockcontent.SAMPLES < 1 / 1000
