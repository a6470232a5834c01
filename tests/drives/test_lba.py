"""Which LBA format a namespace is given, and when it is left alone."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.kvstrata_lba import LbaError, check_alone, choose, current, formats, namespaces

CAN_FORMAT = {"oacs": 0x1E, "fna": 0, "nn": 128}
PLAIN_512 = {"ms": 0, "ds": 9, "rp": 2}
PLAIN_4096 = {"ms": 0, "ds": 12, "rp": 0}


def id_ns(*lbafs: dict[str, int], flbas: int = 0) -> dict[str, Any]:
    return {"nlbaf": len(lbafs) - 1, "flbas": flbas, "lbafs": list(lbafs)}


def test_the_format_with_4096_bytes_and_no_metadata_is_chosen() -> None:
    with_metadata = {"ms": 8, "ds": 12, "rp": 0}
    choice = choose(id_ns(PLAIN_512, with_metadata, PLAIN_4096), CAN_FORMAT)
    assert choice.index == 2
    assert "now 512 bytes" in choice.why


def test_of_several_the_best_relative_performance_is_chosen() -> None:
    worse = {"ms": 0, "ds": 12, "rp": 2}
    assert choose(id_ns(PLAIN_512, worse, PLAIN_4096, PLAIN_4096), CAN_FORMAT).index == 2


def test_a_namespace_that_has_it_already_is_left_alone() -> None:
    choice = choose(id_ns(PLAIN_512, PLAIN_4096, flbas=1), CAN_FORMAT)
    assert (choice.index, choice.why) == (None, "it has blocks of 4096 bytes already")


def test_a_namespace_that_has_a_slower_one_of_4096_bytes_is_given_the_best() -> None:
    slower = {"ms": 0, "ds": 12, "rp": 3}
    assert choose(id_ns(slower, PLAIN_4096), CAN_FORMAT).index == 1


def test_4096_bytes_with_metadata_are_not_what_is_wanted() -> None:
    with_metadata = {"ms": 8, "ds": 12, "rp": 0}
    assert choose(id_ns(with_metadata, PLAIN_4096), CAN_FORMAT).index == 1


def test_a_drive_without_such_a_format_is_left_alone_and_says_so() -> None:
    choice = choose(id_ns(PLAIN_512, {"ms": 64, "ds": 12, "rp": 0}), CAN_FORMAT)
    assert choice.index is None
    assert "offers no format" in choice.why


def test_a_drive_that_cannot_be_formatted_is_left_alone_and_says_so() -> None:
    choice = choose(id_ns(PLAIN_512, PLAIN_4096), {"oacs": 0x15})
    assert (choice.index, choice.why) == (None, "its controller has no Format NVM command")


def test_an_unused_entry_of_the_list_is_no_format() -> None:
    assert [each.index for each in formats(id_ns(PLAIN_512, {"ms": 0, "ds": 0, "rp": 0}, PLAIN_4096))] == [0, 2]


@pytest.mark.parametrize(("flbas", "index"), [(0x00, 0), (0x11, 1), (0x0F, 15), (0x20, 16), (0x65, 53)])
def test_the_format_in_use_is_read_from_all_of_its_bits(flbas: int, index: int) -> None:
    assert current({"flbas": flbas}) == index


def test_namespace_ids_are_read_from_the_list() -> None:
    assert namespaces("[   0]:0x1\n[   1]:0xa\n") == [1, 10]
    assert namespaces("") == []


def test_the_only_namespace_of_a_controller_may_be_formatted() -> None:
    check_alone("/dev/x", 1, [1], CAN_FORMAT)


@pytest.mark.parametrize(("fna", "effect"), [(1, "formats all of them at once"), (0, "could reach them")])
def test_another_namespace_of_the_controller_forbids_a_format(fna: int, effect: str) -> None:
    with pytest.raises(LbaError, match=f"/dev/x.*id 2, 3.*{effect}.*Allowed: nvme_lba_format keep"):
        check_alone("/dev/x", 1, [1, 2, 3], {**CAN_FORMAT, "fna": fna})


def test_a_drive_that_does_not_list_its_namespaces_must_be_able_to_have_only_one() -> None:
    check_alone("/dev/x", 1, None, {"nn": 1})
    with pytest.raises(LbaError, match="does not list its namespaces"):
        check_alone("/dev/x", 1, None, {"nn": 32})
