"""What all HTML reports have in common."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from kvstrata.page import html, svg
from kvstrata.page.html import Cell
from kvstrata.page.text import fit, safe

ODD = '<script>"&\x1b[31m\x00\ud800 \U0001f600'


def test_what_xml_cannot_hold_is_replaced_and_the_rest_is_kept() -> None:
    assert fit(ODD) == '<script>"&\ufffd[31m\ufffd\ufffd \U0001f600'
    assert ET.fromstring(f'<a b="{safe(ODD)}">{safe(ODD)}</a>').text == fit(ODD)  # noqa: S314 - our own text


def test_every_text_of_a_page_is_escaped() -> None:
    parts = [
        html.facts({ODD: ODD}),
        html.notes("notes", [ODD]),
        html.section(ODD, html.charts([svg.bars(ODD, [svg.Bar(ODD, 1, [1])], svg.Reference(ODD, 1))])),
        html.table([ODD], [[ODD], [Cell(ODD, "doubt")]]),
    ]
    text = html.page(ODD, parts)
    assert "<script" not in text
    assert "\x1b" not in text
    text.encode()


def test_a_page_forbids_itself_to_load_anything() -> None:
    text = html.page("t", [])
    assert re.search(r'Content-Security-Policy" content="default-src \'none\'; style-src \'unsafe-inline\'"', text)


def test_where_there_is_nothing_to_remark_there_is_no_list() -> None:
    assert html.notes("notes", []) == ""
