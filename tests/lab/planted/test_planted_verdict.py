"""What a report says about a planted fault."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kvstrata.lab.planted.verdict import Row, failures, markdown, read

GOOD = Row("full-store", "store.capacity", "filled", "1% free", (), (), True, 1.0)


def check(check_id: str, status: str, host: str = "node2", seen: str = "seen") -> dict[str, Any]:
    return {"id": check_id, "status": status, "host": host, "seen": seen}


def document(*checks: dict[str, Any]) -> dict[str, Any]:
    return {"checks": [check("host.ssh", "pass"), *checks]}


def test_the_fault_is_named_by_its_check_on_its_host() -> None:
    told, others, follows = read(document(check("host.mount", "fail", seen="tmpfs")), "host.mount", "node2")
    assert (told, others, follows) == ("tmpfs", (), ())


def test_the_same_check_on_another_host_is_another_failure() -> None:
    told, others, _ = read(document(check("host.mount", "fail", "node1")), "host.mount", "node2")
    assert told == ""
    assert others == ("host.mount on node1: seen",)


def test_a_fault_of_the_site_may_be_named_by_any_host() -> None:
    told, others, _ = read(document(check("host.link", "fail", "node1")), "host.link", None)
    assert (told, others) == ("seen", ())


def test_a_check_that_could_not_be_made_names_nothing() -> None:
    told, others, _ = read(document(check("host.mount", "error")), "host.mount", "node2")
    assert told == ""
    assert len(others) == 1


def test_what_follows_from_the_fault_is_told_and_is_no_failure() -> None:
    skip = check("store.roundtrip", "skip", seen="NOT CHECKED: follows from store.capacity on node2 (d0); seen: full")
    told, others, follows = read(
        document(check("store.capacity", "fail"), skip, check("store.ssd", "skip")), "store.capacity", "node2"
    )
    assert told == "seen"
    assert others == ()
    assert follows == ("store.roundtrip on node2",)


def test_failures_are_what_failed_and_what_could_not_be_made() -> None:
    bad = failures(document(check("a", "fail"), check("b", "error"), check("c", "skip")))
    assert [entry["id"] for entry in bad] == ["a", "b"]


def test_a_row_is_right_only_when_named_alone_and_all_was_well_again() -> None:
    assert GOOD.ok
    assert replace(GOOD, well_after=None).ok
    assert not replace(GOOD, named="").ok
    assert not replace(GOOD, others=("x on y: z",)).ok
    assert not replace(GOOD, well_after=False).ok
    assert not replace(GOOD, not_planted="no kernel module").ok
    assert GOOD.as_json()["ok"] is True


def test_the_table_has_a_line_for_each_fault_and_keeps_its_cells() -> None:
    rows = [replace(GOOD, named="a | b\nc"), replace(GOOD, fault="x", named="", not_planted="no blkio")]
    lines = markdown(rows).splitlines()
    assert lines[0] == "| Fault | How it is planted | Named by | It says | Other failures |"
    assert lines[2] == "| full-store | filled | `store.capacity` | a \\| b c | none |"
    assert lines[3].split(" | ")[3] == "NOT PLANTED: no blkio"
    assert len(lines) == 4
