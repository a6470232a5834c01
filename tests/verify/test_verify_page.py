"""The HTML page: whole, for people, and alone in the world."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from kvstrata.cluster import TiersPolicy
from kvstrata.verify import page
from kvstrata.verify.result import could_not_check
from tests.verify.fakes.site import Code, Site
from tests.verify.test_verify_run import run

VOID = {"meta", "br"}
RESOURCES = {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"}


class Parsed(HTMLParser):
    """A page's elements, which must be balanced, its attributes, and the text of each cell."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_tells_the_verdict_and_every_check(site: Site) -> None:
    site.engine["node1"].routes["/health"] = lambda body: Code(503)
    document = run(site).as_json()
    words = Parsed(page.render(document)).words
    assert "FAILED, exit status 1" in words
    for check in document["checks"]:
        assert {check["host"], check["what"], check["expected"], check["seen"]} <= set(words)
    for check in document["failures"] + document["skipped"]:
        assert check["hint"] in words
    for layer in ("host", "store", "cache", "engine", "router", "tiers"):
        assert any(word.startswith(f"{layer}: ") for word in words)


def test_the_times_of_the_proof_are_drawn(site: Site) -> None:
    text = page.render(run(site, policy=TiersPolicy.ALWAYS).as_json())
    words = Parsed(text).words
    assert "time to first token, s" in words
    for label in ("cold, node1", "after restart, node1", "other node, node2"):
        assert label in words
    assert sum(word.endswith("x faster") for word in words) == 2
    assert "seed-1" in words


def test_without_a_proof_nothing_is_drawn(site: Site) -> None:
    words = Parsed(page.render(run(site).as_json())).words
    assert "time to first token, s" not in words
    assert "prompt tokens from the external cache" not in words


def test_the_versions_are_told(site: Site) -> None:
    words = Parsed(page.render(run(site).as_json())).words
    assert "version 0.31.0" in words
    assert any(word.startswith("engine kvrocks, version ") for word in words)


def test_the_page_asks_for_nothing_outside_itself(site: Site) -> None:
    text = page.render(run(site, policy=TiersPolicy.ALWAYS).as_json())
    parsed = Parsed(text)
    assert not parsed.attributes & RESOURCES
    assert not parsed.tags & {"script", "link", "iframe", "img", "object", "embed", "base", "image", "use"}
    assert not re.search(r"@import|url\(", text)
    # An address is text that is read, never one that is followed.
    assert not re.search(r"<[^>]*https?:", text)


@pytest.mark.parametrize(
    "odd", ["<script>alert(1)</script>", '"><img src=http://x/>', "\x00\x1b[31m\ud800", "</td>&lt;"]
)
def test_what_a_node_says_is_text_and_nothing_else(site: Site, odd: str) -> None:
    site.engine["node1"].routes["/v1/models"] = lambda body: {"data": [{"id": odd, "max_model_len": 1}]}
    text = page.render(run(site).as_json())
    parsed = Parsed(text)
    assert not parsed.tags & {"script", "img"}
    assert not re.search("[\x00\x1b\ud800]", text)
    if odd.isprintable():
        assert f"{odd} with 1 tokens" in parsed.words


def test_an_inventory_that_cannot_be_described_has_its_page_too() -> None:
    words = Parsed(page.render(could_not_check("inventories/x", "no such <file>"))).words
    assert "COULD NOT CHECK, exit status 2" in words
    assert "no such <file>" in words
