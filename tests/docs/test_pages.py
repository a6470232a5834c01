"""The hand-written pages name what the code has: links, directives, checks, fields, settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
import yaml
from typer.main import get_command

from kvstrata.docs.settings import fill_settings
from kvstrata.kvrocks.profiles import PROFILES
from kvstrata.paths import PROJECT
from kvstrata.verify.check import Check, Layer, Status
from kvstrata.verify.cli import verify
from kvstrata.verify.compare import Kind
from kvstrata.verify.result import could_not_check

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
DOCS = PROJECT / "docs"

verify_app = typer.Typer(add_completion=False)
verify_app.command()(verify)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def defaults(role: str) -> dict[str, object]:
    """A role's defaults."""
    found: dict[str, object] = yaml.safe_load((PROJECT / "roles" / role / "defaults" / "main.yml").read_text())
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_or_heading(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_table_has_rows_of_one_width(page: Path) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", page.read_text(), re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


@pytest.mark.parametrize("profile", PROFILES)
def test_every_directive_of_a_profile_has_its_value_and_reason(profile: str) -> None:
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.+?) \|", (DOCS / "kvrocks.md").read_text(), re.MULTILINE))
    for directive, value in PROFILES[profile].items():
        values = rows.get(directive, "")
        # One value for all profiles, or "VALUE; PROFILE: VALUE".
        own = re.search(rf"; `{profile}`: (\S+)", values)
        assert (own[1] if own else values.partition(";")[0]) == str(value), directive


def test_the_page_of_the_host_is_what_the_role_sets() -> None:
    page = (DOCS / "host.md").read_text()
    assert fill_settings(page, PROJECT) == page
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.+?) \|", page, re.MULTILINE))
    assert rows["vm.swappiness"] == "1"
    assert rows["vm.dirty_bytes"] == "4294967296, or 10 % of the memory where that is less"
    assert rows["host_transparent_hugepages"] == defaults("host")["host_transparent_hugepages"]


def test_every_check_of_the_verifier_is_explained() -> None:
    sources = "".join(path.read_text() for path in (PROJECT / "src" / "kvstrata" / "verify").rglob("*.py"))
    layers = "|".join(Layer)
    ids = set(re.findall(rf'"((?:{layers})\.[a-z_]+)"', sources))
    page = (DOCS / "verify.md").read_text()
    unexplained = {name for name in ids if not name.endswith(".all") and f"`{name}`" not in page}
    assert len(ids) > 20
    assert unexplained == set()


def test_every_field_of_the_json_document_is_explained() -> None:
    page = (DOCS / "verify.md").read_text()
    check = Check("id", Layer.HOST, "host", "what", "expected", "seen", Status.PASS, "hint")
    for field in (*could_not_check("inventory", "why"), *check.as_json()):
        assert f"`{field}`" in page


def test_every_option_of_the_verifier_is_explained() -> None:
    rows = re.findall(r"^\| `(--[a-z-]+)", (DOCS / "verify.md").read_text(), re.MULTILINE)
    options = {name for option in get_command(verify_app).params for name in option.opts if name.startswith("--")}
    # Where it reads the site from stands at the top of the page.
    assert options - {"--inventory", "--cluster"} == set(rows)


def test_every_kind_of_change_is_explained() -> None:
    rows = re.findall(r"^\| ([a-z, ]+) \|", (DOCS / "verify.md").read_text(), re.MULTILINE)
    assert set(Kind) <= set(rows)
