"""Our lines of mdadm.conf, and nobody else's."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils import kvstrata_mdconf as mdconf

THEIRS = "HOMEHOST <system>\nMAILADDR root\nARRAY /dev/md/theirs UUID=11111111:11111111:11111111:11111111\n"
A, B = "aaaaaaaa:00000000:00000000:00000001", "bbbbbbbb:00000000:00000000:00000002"


def test_without_an_array_the_file_is_not_touched() -> None:
    assert mdconf.merged(THEIRS, {}, ["d0"]) == THEIRS
    assert mdconf.merged("", {}, []) == ""


def test_an_array_is_added_behind_what_is_there() -> None:
    text = mdconf.merged(THEIRS, {"d0": A}, [])
    assert text.startswith(THEIRS)
    assert f"\nARRAY /dev/md/kvs-d0 metadata=1.2 UUID={A}\n" in text
    assert mdconf.ours(text) == {"d0": A}


def test_a_second_time_nothing_changes() -> None:
    text = mdconf.merged(THEIRS, {"d0": A}, ["d1"])
    assert mdconf.merged(text, {"d0": A}, ["d1"]) == text


def test_a_file_without_a_last_newline_keeps_its_last_line() -> None:
    assert mdconf.merged("MAILADDR root", {"d0": A}, []).startswith("MAILADDR root\n#")


def test_an_array_made_anew_replaces_the_line_of_its_name() -> None:
    text = mdconf.merged(mdconf.merged(THEIRS, {"d0": A}, []), {"d0": B}, [])
    assert mdconf.ours(text) == {"d0": B}
    assert A not in text


def test_an_array_that_left_the_inventory_keeps_its_line() -> None:
    text = mdconf.merged(mdconf.merged(THEIRS, {"d0": A, "d1": B}, []), {"d0": A}, [])
    assert mdconf.ours(text) == {"d0": A, "d1": B}


def test_a_name_that_is_a_single_drive_now_loses_its_line_and_the_last_line_its_marks() -> None:
    text = mdconf.merged(mdconf.merged(THEIRS, {"d0": A}, []), {}, ["d0"])
    assert text == THEIRS


def test_lines_of_others_that_look_like_ours_are_not_ours() -> None:
    text = f"ARRAY /dev/md/kvs-d0 UUID={B}\n"
    assert mdconf.ours(text) == {}
    assert mdconf.merged(text, {"d1": A}, ["d0"]).startswith(text)


def test_what_an_initramfs_was_made_with_differs_with_our_lines_alone() -> None:
    one = mdconf.merged(THEIRS, {"d0": A}, [])
    assert mdconf.digest(one) == mdconf.digest(mdconf.merged("", {"d0": A}, []))
    assert mdconf.digest(one) != mdconf.digest(mdconf.merged(THEIRS, {"d0": B}, []))
    assert mdconf.digest(THEIRS) == mdconf.digest("")


def test_a_uuid_is_spelled_as_mdadm_does() -> None:
    assert mdconf.spelled("aaaaaaaa000000000000000000000001") == A
    assert mdconf.spelled("") == ""


def test_the_initramfs_of_either_family_is_found(tmp_path: Path) -> None:
    assert mdconf.image_of("6.1", str(tmp_path)) is None
    for name in ("initrd.img-6.1", "initramfs-6.1.img"):
        (tmp_path / "boot").mkdir(exist_ok=True)
        image = tmp_path / "boot" / name
        image.touch()
        assert mdconf.image_of("6.1", str(tmp_path)) == str(image)
        image.unlink()
