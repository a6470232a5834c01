"""The directives that every unit shares."""

import pytest

from kvstrata.units import arguments, flags, hardening, restart_backoff


def test_a_unit_may_write_nowhere_unless_it_says_so() -> None:
    lines = hardening([]).splitlines()
    assert "ProtectSystem=strict" in lines
    assert "NoNewPrivileges=yes" in lines
    assert "CapabilityBoundingSet=" in lines
    assert not [line for line in lines if line.startswith("ReadWritePaths")]


def test_the_folders_that_a_unit_writes_are_one_directive() -> None:
    assert "ReadWritePaths=/var/lib/a -/var/lib/b" in hardening(["/var/lib/a", "-/var/lib/b"]).splitlines()


@pytest.mark.parametrize("path", ["var/lib/a", "-var/lib/a", "", "-"])
def test_a_relative_path_is_refused_by_name(path: str) -> None:
    with pytest.raises(ValueError, match="not absolute") as refusal:
        hardening(["/fine", path])
    assert repr(path) in str(refusal.value)


def test_only_a_unit_that_needs_a_gpu_sees_the_devices_of_the_host() -> None:
    assert "PrivateDevices=yes" in hardening([]).splitlines()
    assert "PrivateDevices=yes" not in hardening([], devices=True).splitlines()


def test_no_directive_comes_twice() -> None:
    names = [line.split("=")[0] for line in hardening(["/a"]).splitlines()]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize(("version", "steps"), [(252, False), ("253", False), (254, True), ("255", True)])
def test_restarts_slow_down_where_systemd_can(version: int | str, steps: bool) -> None:
    lines = restart_backoff(version).splitlines()
    assert lines[:2] == ["Restart=always", "RestartSec=2"]
    assert lines[2:] == (["RestartSteps=6", "RestartMaxDelaySec=60"] if steps else [])


def test_flags_are_one_a_line_and_a_list_repeats_its_flag() -> None:
    given = {
        "--port": 9000,
        "--source": ["http://a=tcp://b", "http://c=tcp://d"],
        "--quick": True,
        "--slow": False,
        "--no": None,
    }
    assert arguments(given) == [
        "--port",
        "9000",
        "--source",
        "http://a=tcp://b",
        "--source",
        "http://c=tcp://d",
        "--quick",
    ]
    assert flags(given).splitlines() == [
        "    --port 9000 \\",
        "    --source http://a=tcp://b \\",
        "    --source http://c=tcp://d \\",
        "    --quick",
    ]


def test_zero_is_a_value() -> None:
    assert arguments({"--queue-size": 0}) == ["--queue-size", "0"]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a b", '"a b"'),
        ("50%", "50%%"),
        ("$HOME", "$$HOME"),
        ('{"a": 1}', '"{\\"a\\": 1}"'),
        ("", '""'),
        ("a\\b", '"a\\\\b"'),
    ],
)
def test_what_systemd_would_read_otherwise_is_quoted(value: str, written: str) -> None:
    assert flags({"--x": value}) == f"    --x {written}"


def test_what_is_no_flag_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'port' is no flag"):
        arguments({"port": 1})


def test_a_value_cannot_end_the_directive() -> None:
    with pytest.raises(ValueError, match="line end"):
        flags({"--x": "a\nUser=root"})
