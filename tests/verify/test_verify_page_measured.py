"""What was measured stands on the page: percentiles drawn, every raw sample in a table."""

from __future__ import annotations

from typing import Any

from kvstrata.verify import page
from kvstrata.verify.document import CheckRow, Document
from kvstrata.verify.result import could_not_check


def sample(number: int, ttft: float | None, gaps: list[int]) -> dict[str, Any]:
    return {"request": number, "ttft_s": ttft, "e2e_s": 1.5, "gaps_us": gaps, "error": None if ttft else "refused"}


def document(**measured: Any) -> Document:
    made = could_not_check("x", "why")
    made["measured"] = measured
    return made


def test_a_load_is_drawn_by_its_percentiles_with_every_request_as_a_dot() -> None:
    rows = [sample(1, 0.1, [1000, 3000]), sample(2, 0.3, [2000]), sample(3, None, [])]
    text = page.render(document(throughput=rows))
    assert "Measured: throughput" in text
    first, gap = text.index("time to first token"), text.index("time between two tokens, ms")
    assert text[first:gap].count("<circle") == 2
    assert ">0.200<" in text[first:gap], "P50 of 0.1 and 0.3"
    assert ">2.0<" in text[gap:], "P50 of 1, 3 and 2 ms"
    assert "refused" in text


def test_every_raw_sample_of_any_layer_is_on_the_page_and_long_lists_are_in_the_json() -> None:
    text = page.render(document(faults=[{"fault": "store", "sent": 7}, {"fault": "node", "times": list(range(9))}]))
    assert "<summary>2 samples</summary>" in text
    for cell in (
        "<th>fault</th>",
        "<th>sent</th>",
        "<th>times</th>",
        "<td>store</td>",
        "<td>9 values, in the JSON</td>",
    ):
        assert cell in text


def test_what_a_node_says_cannot_break_out_of_the_page() -> None:
    assert "<script>" not in page.render(document(faults=[{"<script>": "<script>"}]))


def test_the_checks_of_very_many_nodes_are_folded() -> None:
    made = document()
    row: CheckRow = {**made["checks"][0], "layer": "host", "status": "pass"}
    made["checks"] = [row] * 500
    assert "<summary>500 checks</summary>" in page.render(made)
