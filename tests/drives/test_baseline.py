"""kvstrata_drive_baseline with a fio of the test's own: when it measures, and what the fact says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kvstrata_drive_baseline as baseline  # type: ignore[import-not-found]
import pytest
from ansible.module_utils import kvstrata_fio

from tests.drives.test_fio import MIB, answer, fill
from tests.plugins.modules import run_module

# Notes down its arguments, and answers for all patterns.
FIO = """#!/bin/sh
here=$(dirname "$0")
echo "$@" >> "$here/asked"
cat "$here/answer"
"""


@pytest.fixture
def node(tmp_path: Path) -> Path:
    (tmp_path / "fio").write_text(FIO)
    (tmp_path / "fio").chmod(0o755)
    (tmp_path / "answer").write_text(answer())
    (tmp_path / "mount").mkdir()
    return tmp_path


def drive(node: Path, **changes: Any) -> dict[str, Any]:
    device = {
        **{"path": "/dev/disk/by-id/nvme-x", "serial": "S1", "model": "ACME", "wwid": "eui.1"},
        **{"size": 4 << 30, "lba_bytes": 4096, "numa_node": 1},
    }
    return {
        **{"source": "/dev/disk/by-id/nvme-x", "mount": str(node / "mount"), "fstype": "xfs", "uuid": "u"},
        "devices": [{**device, **changes}],
    }


def run(node: Path, drives: dict[str, Any], when: str = "once", *, check_mode: bool = False) -> dict[str, Any]:
    args = {"drives": drives, "measure": when, "seconds": 2, "path": str(node / "facts.d" / "kvstrata_drives.fact")}
    return run_module("kvstrata_drive_baseline", args, check_mode=check_mode, path=node)


def fact(node: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((node / "facts.d" / "kvstrata_drives.fact").read_text())
    return found


def asked(node: Path) -> list[str]:
    return (node / "asked").read_text().splitlines() if (node / "asked").exists() else []


def test_a_drive_is_measured_once_and_its_fact_is_readable_for_all_and_not_executable(node: Path) -> None:
    first = run(node, {"d0": drive(node)})
    again = run(node, {"d0": drive(node)})
    assert (first["changed"], first["measured"]) == (True, ["d0"])
    assert (again["changed"], again["measured"]) == (False, [])
    assert len(asked(node)) == 1
    assert (node / "facts.d" / "kvstrata_drives.fact").stat().st_mode & 0o777 == 0o644


def test_the_fact_says_which_drive_it_is_and_what_was_read(node: Path) -> None:
    run(node, {"d0": drive(node)})
    document = fact(node)
    found = document["drives"]["d0"]
    assert document["schema"] == kvstrata_fio.SCHEMA
    assert (found["fstype"], found["uuid"]) == ("xfs", "u")
    assert found["devices"] == [
        {
            **{"path": "/dev/disk/by-id/nvme-x", "serial": "S1", "model": "ACME", "wwid": "eui.1"},
            **{"size_bytes": 4 << 30, "lba_bytes": 4096, "numa_node": 1},
        }
    ]
    assert found["baseline"]["seconds"] == 2
    assert found["baseline"]["seq_1m"]["mb_per_s"] == 6543.2
    assert found["baseline"]["date"].endswith("Z")


def test_without_enough_data_on_it_the_device_itself_is_read_and_the_fact_says_so(node: Path) -> None:
    run(node, {"d0": drive(node)})
    assert "--filename=/dev/disk/by-id/nvme-x" in asked(node)[0]
    measured = fact(node)["drives"]["d0"]["baseline"]
    assert (measured["on_written_data"], measured["read_from_bytes"]) == (False, 4 << 30)


def test_files_are_held_open_under_names_that_outlive_them(tmp_path: Path) -> None:
    fill(tmp_path / "blob", MIB)
    with baseline.held([str(tmp_path / "blob"), str(tmp_path / "gone")]) as names:
        (tmp_path / "blob").unlink()
        (name,) = names
        assert Path(name).stat().st_size == MIB
    assert not Path(name).exists()


def test_another_drive_under_the_same_name_is_measured_and_the_others_are_not(node: Path) -> None:
    run(node, {"d0": drive(node), "d1": drive(node, serial="S2")})
    again = run(node, {"d0": drive(node, serial="S9"), "d1": drive(node, serial="S2")})
    assert again["measured"] == ["d0"]
    assert fact(node)["drives"]["d0"]["devices"][0]["serial"] == "S9"


def test_a_new_file_system_on_the_same_drive_is_noted_without_measuring(node: Path) -> None:
    run(node, {"d0": drive(node)})
    again = run(node, {"d0": {**drive(node), "uuid": "v"}})
    assert (again["changed"], again["measured"]) == (True, [])
    assert fact(node)["drives"]["d0"]["uuid"] == "v"


def test_a_drive_that_left_the_inventory_leaves_the_fact(node: Path) -> None:
    run(node, {"d0": drive(node), "d1": drive(node, serial="S2")})
    assert run(node, {"d0": drive(node)})["changed"] is True
    assert list(fact(node)["drives"]) == ["d0"]


def test_always_measures_again_and_never_does_not_even_look(node: Path) -> None:
    run(node, {"d0": drive(node)})
    assert run(node, {"d0": drive(node)}, "always")["measured"] == ["d0"]
    result = run(node, {"d0": drive(node)}, "never")
    assert (result["changed"], result["measured"]) == (False, [])
    assert "NOT MEASURED" in result["msg"]


def test_check_mode_says_what_it_would_measure_and_does_not(node: Path) -> None:
    new = {**drive(node), "uuid": None, "source": None}
    result = run(node, {"d0": drive(node), "d1": new}, check_mode=True)
    assert (result["changed"], result["measured"]) == (True, ["d0", "d1"])
    assert asked(node) == []
    assert not (node / "facts.d").exists()


def test_a_fact_of_another_schema_or_in_pieces_is_made_anew(node: Path) -> None:
    run(node, {"d0": drive(node)})
    path = node / "facts.d" / "kvstrata_drives.fact"
    path.write_text(json.dumps({**fact(node), "schema": kvstrata_fio.SCHEMA + 1}))
    assert run(node, {"d0": drive(node)})["measured"] == ["d0"]
    path.write_text("{")
    assert run(node, {"d0": drive(node)})["measured"] == ["d0"]


def test_a_fio_that_fails_is_told_with_the_drive(node: Path) -> None:
    (node / "fio").write_text("#!/bin/sh\necho no such engine >&2\nexit 1\n")
    result = run(node, {"d0": drive(node)})
    assert result["failed"]
    assert "fio failed on drive d0: no such engine" in result["msg"]


def test_an_answer_that_is_none_is_told_with_the_drive(node: Path) -> None:
    (node / "answer").write_text("nothing\n")
    result = run(node, {"d0": drive(node)})
    assert result["msg"].startswith("drive d0: fio did not finish seq_1m")
