"""Unknown and mistyped variables, against a project of the test's own and against this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from kvstrata.paths import PROJECT
from kvstrata.preflight import variables

SITE: dict[str, Any] = {
    "kvstrata_site": "lab",
    "kvstrata_accelerator": "cpu",
    "kvstrata_drives": [{"name": "d0", "device": "/dev/disk/by-id/nvme-A", "store_gib": 100}],
    "kvstrata_model": {"name": "m", "path": "/srv/m", "revision": "1", "max_model_len": 8192},
    "kvstrata_dram_cache_gib": 1.5,
}


def mistyped(**changes: Any) -> list[str]:
    given = {name: value for name, value in {**SITE, **changes}.items() if value is not None}
    return [str(problem) for problem in variables.mistyped("n1", given, variables.site_specs(PROJECT))]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for role, options in {"disks": {"disks_path": {"type": "path"}}, "empty": None}.items():
        path = tmp_path / "roles" / role / "meta" / "argument_specs.yml"
        path.parent.mkdir(parents=True)
        main: dict[str, Any] = {"short_description": "x"} | ({"options": options} if options else {})
        path.write_text(yaml.safe_dump({"argument_specs": {"main": main}}))
    specs = tmp_path / "playbooks" / "vars" / "site_specs.yml"
    specs.parent.mkdir(parents=True)
    specs.write_text(yaml.safe_dump({"options": {"kvstrata_site": {"type": "str", "description": "Name."}}}))
    return tmp_path


def test_known_variables_are_those_of_the_roles_and_of_the_site(project: Path) -> None:
    assert set(variables.known_variables(project)) == {"disks_path", "kvstrata_site"}


def test_the_prefixes_are_the_roles_names_and_ours(project: Path) -> None:
    assert set(variables.prefixes(project)) == {"disks_", "empty_", "kvstrata_"}


def unknown(project: Path, **given: object) -> list[str]:
    known, ours = variables.known_variables(project), variables.prefixes(project)
    return [str(problem) for problem in variables.unknown("n1", given, known, ours)]


def test_known_variables_and_those_of_others_pass(project: Path) -> None:
    assert unknown(project, disks_path="/a", kvstrata_site="x", ansible_host="h", diskspath="/b", my_disks_path=1) == []


def test_a_misspelt_variable_gets_the_right_name_as_an_answer(project: Path) -> None:
    assert unknown(project, disks_paht="/a", kvstrata_sight="x") == [
        "n1: unknown variable disks_paht is '/a'; allowed: did you mean disks_path?",
        "n1: unknown variable kvstrata_sight is 'x'; allowed: did you mean kvstrata_site?",
    ]


def test_a_variable_like_no_other_gets_the_list_as_an_answer(project: Path) -> None:
    assert unknown(project, kvstrata_overclocking=True) == [
        "n1: unknown variable kvstrata_overclocking is True; allowed: only the variables of docs/variables.md"
    ]


def test_every_variable_of_this_project_is_described_with_a_type() -> None:
    known = variables.known_variables(PROJECT)
    assert {"kvstrata_drives", "nvme_drives", "vllm_first_port", "router_port", "preflight_systems"} <= set(known)
    assert [name for name, spec in known.items() if not spec.get("type") or not spec.get("description")] == []


def test_every_role_keeps_to_its_own_prefix() -> None:
    strangers = []
    for path in PROJECT.glob("roles/*/meta/argument_specs.yml"):
        options = yaml.safe_load(path.read_text())["argument_specs"]["main"].get("options", {})
        strangers += [name for name in options if not name.startswith(f"{path.parent.parent.name}_")]
    assert strangers == []


def test_the_smallest_site_passes() -> None:
    assert mistyped() == []


def test_a_number_as_text_is_a_number() -> None:
    assert mistyped(kvstrata_replicas="2") == []


REQUIRED = ["kvstrata_site", "kvstrata_accelerator", "kvstrata_drives", "kvstrata_model", "kvstrata_dram_cache_gib"]


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_required_variable_is_named_with_its_meaning(name: str) -> None:
    spec = variables.site_specs(PROJECT)[name]
    (line,) = mistyped(**{name: None})
    assert line.startswith(f"n1: {name} is None; allowed: {spec['type']}: {spec['description']}")
    assert line.endswith(f"(missing required arguments: {name})")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("kvstrata_replicas", "many", "int: Engines on a host"),
        ("kvstrata_dram_cache_gib", "8GiB", "float: DRAM tier of a host in GiB"),
        ("kvstrata_accelerator", "tpu", "must be one of: cpu, cuda"),
        ("kvstrata_verify_tiers", "sometimes", "must be one of: if_changed, always, never"),
        ("kvstrata_drives", 7, "list: The drives of a host"),
        ("kvstrata_drives", ["/dev/nvme0n1"], "list: The drives of a host"),
        ("kvstrata_drives", [{"name": "d0", "device": "/dev/a"}], "missing required arguments: store_gib"),
        ("kvstrata_drives", [{**SITE["kvstrata_drives"][0], "store_gb": 1}], "store_gb"),
        ("kvstrata_drives", [{**SITE["kvstrata_drives"][0], "store_gib": "lots"}], "list: The drives of a host"),
        ("kvstrata_model", {**SITE["kvstrata_model"], "max_model_len": "long"}, "dict: The model"),
        ("kvstrata_model", {**SITE["kvstrata_model"], "revison": "1"}, "revison"),
    ],
)
def test_a_value_of_another_kind_is_refused_with_its_name_value_and_kind(name: str, value: Any, allowed: str) -> None:
    lines = mistyped(**{name: value})
    assert lines
    # A list of the wrong things can be wrong in more than one way.
    assert all(line.startswith(f"n1: {name} is {value!r}; allowed: ") for line in lines)
    assert any(allowed in line for line in lines)


def test_all_wrong_values_are_said_at_once() -> None:
    assert len(mistyped(kvstrata_replicas="many", kvstrata_gpus="few", kvstrata_site=None)) == 3
