"""Unit files: their lines, their drop-ins, and what a directive that nobody knows leads to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from kvstrata.paths import PROJECT
from kvstrata.unit_runner import files, order
from kvstrata.unit_runner.directives import COMMANDS, NOT_APPLIED, service
from kvstrata.unit_runner.errors import UnitError
from kvstrata.unit_runner.service import Service
from kvstrata.units import hardening, restart_backoff

MINIMAL = "[Service]\nExecStart=/bin/true\n"


def write(folder: Path, units: Mapping[str, str]) -> None:
    for name, text in units.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def load(folder: Path, name: str) -> Service:
    unit = files.find(name, [folder])
    assert unit is not None
    return service(unit)


def test_lines_are_joined_and_comments_left_out(tmp_path: Path) -> None:
    text = "# first\n[Service]\nExecStart=/bin/echo a \\\n# between\n; and another\n   b\n\nUMask=0077\n"
    found = list(files.parse(text, "f"))
    assert [(line.name, re.sub(r"\s+", " ", line.value), line.where) for line in found] == [
        ("ExecStart", "/bin/echo a b", "f:3"),
        ("UMask", "0077", "f:8"),
    ]


@pytest.mark.parametrize("text", ["[Service]\nnonsense\n", "ExecStart=/bin/true\n", "[Service]\nExecStart=/bin/a \\\n"])
def test_a_file_that_is_no_unit_is_refused(text: str) -> None:
    with pytest.raises(UnitError, match="f:"):
        list(files.parse(text, "f"))


def test_drop_ins_count_in_the_order_of_their_names_and_the_particular_one_wins(tmp_path: Path) -> None:
    def environment(value: str) -> str:
        return f"[Service]\nEnvironment=A={value}\n"

    units = {
        "foo@.service": MINIMAL,
        "service.d/05.conf": environment("type"),
        "foo@.service.d/10.conf": environment("template"),
        "foo@1.service.d/10.conf": environment("instance"),
        "foo@1.service.d/20.conf": "[Service]\nEnvironment=B=last\n",
    }
    write(tmp_path, units)
    found = load(tmp_path, "foo@1.service")
    assert found.environment == {"A": "instance", "B": "last"}
    assert [file.name for file in found.files] == ["foo@.service", "05.conf", "10.conf", "20.conf"]
    assert load(tmp_path, "foo@2.service").environment == {"A": "template"}


def test_an_empty_value_resets_a_list_and_a_masked_unit_is_refused(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "a.service": "[Service]\nExecStart=/bin/false\nExecStart=\nExecStart=/bin/true\n"
            "Environment=A=1\nEnvironment=\n",
        },
    )
    found = load(tmp_path, "a.service")
    assert [command.path for command in found.exec_start] == ["/bin/true"]
    assert found.environment == {}
    (tmp_path / "b.service").symlink_to("/dev/null")
    with pytest.raises(UnitError, match="masked"):
        files.find("b.service", [tmp_path])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("MemoryMax=1G", "MemoryMax= of \\[Service\\] is not known"),
        ("StandardOutput=journal", "StandardOutput= of"),
        ("Type=forking", "'forking'; allowed: simple, exec, oneshot, notify"),
        ("ExecStart=!/bin/true", "prefix !"),
        ("ExecStart=bin/true", "allowed: an absolute path"),
        ("ExecStart=/bin/true", "2 commands"),
        ("Restart=sometimes", "allowed: no, always"),
        ("UMask=9", "allowed: octal"),
        ("CapabilityBoundingSet=~CAP_KILL", "without ~"),
        ("StateDirectory=/abs", "relative paths"),
        ("LoadCredential=a", "NAME:/absolute/path"),
        ("Environment=1=2", "allowed: NAME=value"),
        ("Environment=A=%q", "specifier %q"),
        ("CPUAffinity=numa", "without NUMAMask="),
        ("OOMScoreAdjust=2000", "-1000 to 1000"),
    ],
)
def test_what_cannot_be_run_as_it_is_written_is_refused_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    write(tmp_path, {"a.service": f"{MINIMAL}{line}\n"})
    with pytest.raises(UnitError, match=said) as caught:
        load(tmp_path, "a.service")
    assert "a.service" in str(caught.value)


def test_a_directive_in_another_section_or_an_unknown_section_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a.service": "[Unit]\nUMask=0077\n" + MINIMAL, "b.service": MINIMAL + "[X-Mine]\nA=b\n"})
    for name in ("a.service", "b.service"):
        with pytest.raises(UnitError, match="allowed"):
            load(tmp_path, name)


def test_what_is_not_applied_is_told_where_it_is_on(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "a.service": f"{MINIMAL}LockPersonality=yes\nProtectClock=no\nRestrictAddressFamilies=AF_INET AF_UNIX\n",
        },
    )
    assert load(tmp_path, "a.service").not_applied == ("LockPersonality=yes", "RestrictAddressFamilies=AF_INET AF_UNIX")


def test_every_directive_of_the_roles_services_is_known() -> None:
    """From the templates themselves: one that is added there must be added here."""
    for template in sorted(PROJECT.glob("roles/*/templates/*.service.j2")):
        if template.name == "fstrim.service.j2":
            # The role nvme's own timer starts it: it serves nothing.
            continue
        text = re.sub(r"\{%.*?%\}|\{\{.*?\}\}", "", template.read_text(), flags=re.DOTALL)
        for line in files.parse(text.replace(" \\\n\n", "\n"), template.name):
            value = "/bin/true" if line.name in COMMANDS else _VALUES.get(line.name, line.value)
            lines = files.parse(f"[{line.section}]\n{line.name}={value}\n", template.name)
            unit = files.UnitFile("a@1.service", (), (*lines, *files.parse(_rest(line.name), "rest")))
            service(unit)


_VALUES = {
    "TimeoutStopSec": "60",
    "LimitNOFILE": "1",
    "Environment": "A=b",
    "EnvironmentFile": "/a",
    "LoadCredential": "a:/b",
    "User": "a",
    "Group": "a",
    "CPUAffinity": "0",
}


def _rest(name: str) -> str:
    return "[Service]\nExecStart=/bin/true\n" if name != "ExecStart" else "[Unit]\nDescription=x\n"


def test_the_hardening_of_all_our_units_is_known_and_what_of_it_is_not_applied() -> None:
    text = "[Service]\nExecStart=/bin/true\n" + hardening(["-/dev/shm"]) + "\n" + restart_backoff(255)
    found = service(files.UnitFile("a.service", (), tuple(files.parse(text, "f"))))
    assert {line.partition("=")[0] for line in found.not_applied} == NOT_APPLIED
    assert (found.protect_system, found.private_tmp, found.bounding, found.umask) == (
        "strict",
        True,
        frozenset(),
        0o077,
    )
    assert (found.restart, found.restart_s, found.restart_steps, found.restart_most_s) == ("always", 2.0, 6, 60.0)


# --- what a start brings with it ---


def find(folder: Path) -> order.Find:
    return lambda name: files.find(name, [folder])


def test_units_start_after_those_that_they_are_to_follow(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "engine.service": "[Unit]\nWants=cache.service network.target none.service\nAfter=cache.service\n"
            + MINIMAL,
            "cache.service": "[Unit]\nRequires=store@0.service\nAfter=store@0.service\n" + MINIMAL,
            "store@.service": "[Unit]\nBefore=early.service\n" + MINIMAL,
        },
    )
    services, missing = order.load(["engine.service"], find(tmp_path))
    assert [one.name for one in order.ordered(services)] == ["store@0.service", "cache.service", "engine.service"]
    assert missing == ["none.service"]


def test_what_is_required_and_missing_or_waits_in_a_ring_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a.service": "[Unit]\nRequires=b.service\n" + MINIMAL})
    with pytest.raises(UnitError, match=r"b\.service: no such unit"):
        order.load(["a.service"], find(tmp_path))
    write(
        tmp_path,
        {
            "a.service": "[Unit]\nWants=b.service\nAfter=b.service\n" + MINIMAL,
            "b.service": "[Unit]\nAfter=a.service\n" + MINIMAL,
        },
    )
    with pytest.raises(UnitError, match="wait for each other"):
        order.ordered(order.load(["a.service"], find(tmp_path))[0])


def test_a_drive_that_should_be_mounted_and_is_not_stops_its_store(tmp_path: Path) -> None:
    place = tmp_path / "drive"
    name = str(place).strip("/").replace("-", "\\x2d").replace("/", "-") + ".mount"
    write(tmp_path, {"a.service": f"[Unit]\nRequiresMountsFor={place}/sub\n" + MINIMAL})
    order.load(["a.service"], find(tmp_path))
    (tmp_path / name).write_text("[Mount]\n")
    with pytest.raises(UnitError, match="is not mounted"):
        order.load(["a.service"], find(tmp_path))
