from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvstrata.bench.gpu_page.committed import PAGE
from kvstrata.docs.__main__ import main, stale
from kvstrata.docs.defaults import Mismatch, mismatches
from kvstrata.docs.specs import ABSENT, Role, Specs, parse_options, read_specs
from kvstrata.docs.variables import render
from kvstrata.paths import PROJECT


def role(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> Role:
    described = {name: {"description": "Text.", **entry} for name, entry in options.items()}
    return Role("box", "A box.", parse_options(described), defaults)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the generator reads of the repository, to be spoilt: all but the runs on GPUs, whose page takes seconds."""
    shutil.copytree(PROJECT / "roles", tmp_path / "roles")
    shutil.copytree(PROJECT / "playbooks" / "vars", tmp_path / "playbooks" / "vars")
    shutil.copytree(PROJECT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns(PAGE.name, "gpu-*.svg"))
    fields = Path("src", "kvstrata", "l2", "config.py")
    (tmp_path / fields).parent.mkdir(parents=True)
    shutil.copy(PROJECT / fields, tmp_path / fields)
    return tmp_path


@pytest.fixture
def whole_checkout(checkout: Path) -> Path:
    """The same, with the runs on GPUs and their page."""
    shutil.copytree(PROJECT / "docs", checkout / "docs", dirs_exist_ok=True)
    if (results := PROJECT / "benchmarks" / "results").is_dir():
        shutil.copytree(results, checkout / "benchmarks" / "results")
    return checkout


def test_the_committed_page_is_what_the_specifications_say() -> None:
    specs = read_specs(PROJECT)
    guides = [role.name for role in specs.roles if (PROJECT / "docs" / f"{role.name}.md").exists()]
    assert stale((PROJECT / "docs" / "variables.md").read_text(), render(specs, guides)) == ""


def test_every_role_defaults_to_what_its_specification_says() -> None:
    assert [str(mismatch) for mismatch in mismatches(read_specs(PROJECT).roles)] == []


def test_equal_defaults_are_no_mismatch() -> None:
    fine = role({"box_size": {"type": "int", "default": 3}, "box_lid": {"type": "str"}}, {"box_size": 3})
    assert list(mismatches([fine])) == []


@pytest.mark.parametrize(
    ("option", "defaults", "specified", "effective"),
    [
        ({"type": "int", "default": 3}, {"box_size": 4}, 3, 4),
        ({"type": "int", "default": 3}, {}, 3, ABSENT),
        ({"type": "int"}, {"box_size": 4}, ABSENT, 4),
        ({"type": "str", "default": None}, {}, None, ABSENT),
        ({"type": "bool", "default": True}, {"box_size": 1}, True, 1),
    ],
)
def test_a_default_that_differs_is_named_with_both_values(
    option: dict[str, Any], defaults: dict[str, Any], specified: object, effective: object
) -> None:
    (found,) = mismatches([role({"box_size": option}, defaults)])
    assert found == Mismatch("box", "box_size", specified, effective)
    assert all(part in str(found) for part in ("box_size", repr(specified), repr(effective)))


def test_a_default_without_any_specification_is_a_mismatch() -> None:
    (found,) = mismatches([role({}, {"box_secret": 1})])
    assert (found.variable, found.specified) == ("box_secret", ABSENT)


def page_of(options: Mapping[str, Any], mapped: frozenset[str] = frozenset()) -> str:
    return render(Specs((), (role(options, {}),), mapped))


def test_a_row_tells_type_default_choices_and_description() -> None:
    page = page_of({"box_lid": {"type": "str", "default": "flat", "choices": ["flat", "round"]}})
    assert "| `box_lid` | str | `flat` | `flat`, `round` | Text. |" in page


def test_required_and_default_free_variables_are_told_apart() -> None:
    page = page_of({"box_a": {"type": "str", "required": True}, "box_b": {"type": "str"}})
    assert "| `box_a` | str | **required** |" in page
    assert "| `box_b` | str |  |" in page


def test_entries_of_a_dictionary_are_indented_below_it() -> None:
    entry = {"name": {"type": "str", "description": "Inner."}}
    page = page_of({"box_things": {"type": "list", "elements": "dict", "options": entry}})
    outer, inner = page.splitlines()[-2:]
    assert outer.startswith("| `box_things` | list of dict |")
    assert inner.startswith("| &emsp;`name` | str |")


def test_what_the_playbooks_set_says_so_instead_of_a_default() -> None:
    page = page_of({"box_size": {"type": "int", "default": 3}}, frozenset({"box_size"}))
    assert "| `box_size` | int | *set by the playbooks* |" in page


def test_a_description_cannot_break_the_table() -> None:
    page = page_of({"box_lid": {"type": "str", "description": "C(a*) or\nb | c, <d>."}})
    assert page.splitlines()[-1].endswith("| `a*` or b \\| c, &lt;d>. |")


def test_a_role_with_a_page_of_its_own_links_to_it() -> None:
    specs = Specs((), (role({}, {}),), frozenset())
    assert "[box.md](box.md)" in render(specs, ["box"])
    assert "box.md" not in render(specs)


def test_check_accepts_what_was_just_written(whole_checkout: Path) -> None:
    assert main([], whole_checkout) == 0
    assert main(["--check"], whole_checkout) == 0


def test_check_shows_the_difference_of_a_stale_page(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([], checkout)
    specs = checkout / "playbooks" / "vars" / "site_specs.yml"
    specs.write_text(specs.read_text().replace("Name of the site;", "What the site is called;"))
    before = (checkout / "docs" / "variables.md").read_text()
    assert main(["--check"], checkout) == 1
    printed = capsys.readouterr()
    assert "+| `kvstrata_site` | str | **required** |  | What the site is called;" in printed.out
    assert "stale" in printed.err
    assert (checkout / "docs" / "variables.md").read_text() == before


def test_check_refuses_a_page_that_is_missing(checkout: Path) -> None:
    (checkout / "docs" / "variables.md").unlink()
    assert main(["--check"], checkout) == 1


def test_a_default_that_differs_fails_even_when_the_page_is_fresh(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkout / "roles" / "lmcache" / "defaults" / "main.yml"
    defaults = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**defaults, "lmcache_port": 7777}))
    assert main([], checkout) == 1
    assert main(["--check"], checkout) == 1
    assert "role lmcache: lmcache_port is 5555" in capsys.readouterr().err


def test_a_field_without_a_docstring_is_refused_by_name(checkout: Path) -> None:
    source = checkout / "src" / "kvstrata" / "l2" / "config.py"
    source.write_text(
        source.read_text().replace("    piece_bytes: int = MIB\n", "    bare: int = 1\n    piece_bytes: int = MIB\n")
    )
    with pytest.raises(ValueError, match=r"TierConfig\.bare has no docstring"):
        main([], checkout)


def test_check_shows_a_stale_table_of_fields(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = checkout / "src" / "kvstrata" / "l2" / "config.py"
    source.write_text(source.read_text().replace("stripe_width: int = 1", "stripe_width: int = 2"))
    assert main(["--check"], checkout) == 1
    assert "+| `stripe_width` | int | `2` |" in capsys.readouterr().out
