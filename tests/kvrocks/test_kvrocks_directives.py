"""The schema of Kvrocks' directives: what each takes, and that a real Kvrocks agrees."""

from __future__ import annotations

import re
import subprocess

import pytest

from kvstrata.kvrocks.directives import DIRECTIVES, OWNED, PER_STORE, VERSION, Directive, Kind, is_ignored, live_names
from kvstrata.paths import cache_dir

BINARY = cache_dir() / "bin" / "kvrocks"
KVROCKS = pytest.mark.skipif(not BINARY.is_file(), reason=f"no Kvrocks at {BINARY}: the schema is not compared with it")
NUMBERS = [each for each in DIRECTIVES.values() if each.kind is Kind.NUMBER]


@pytest.mark.parametrize(
    ("name", "given", "canonical"),
    [
        ("rocksdb.enable_blob_files", True, "yes"),
        ("rocksdb.enable_blob_files", "No", "no"),
        ("rocksdb.compression", False, "no"),
        ("rocksdb.compression", "LZ4", "lz4"),
        ("workers", 256, "256"),
        ("workers", "1", "1"),
        ("slowlog-log-slower-than", -1, "-1"),
        ("proto-max-bulk-len", "512m", "536870912"),
        ("proto-max-bulk-len", 1048576, "1048576"),
        ("compact-cron", "0 3 * * *", "0 3 * * *"),
    ],
)
def test_a_value_becomes_what_the_server_reports(name: str, given: object, canonical: str) -> None:
    assert DIRECTIVES[name].canonical(given) == canonical


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("rocksdb.enable_blob_files", "true"),
        ("rocksdb.enable_blob_files", 1),
        ("rocksdb.compression", "gzip"),
        ("rocksdb.compression", True),
        ("workers", 0),
        ("workers", 257),
        ("workers", True),
        ("workers", 1.5),
        ("workers", "8 "),
        ("workers", None),
        ("proto-max-bulk-len", "1gb"),
        ("proto-max-bulk-len", "1023k"),
        ("rocksdb.blob_file_size", 2**31),
        ("compact-cron", "0 3 * * *\nrequirepass x"),
        ("compact-cron", ["0"]),
    ],
)
def test_a_value_of_another_type_or_out_of_range_is_refused(name: str, given: object) -> None:
    with pytest.raises(ValueError, match=re.escape(str(given))):
        DIRECTIVES[name].canonical(given)


@pytest.mark.parametrize(
    "name", ["rocksdb.partition_filters", "partition_filters", "socket-fd", "rocksdb.wal_compression"]
)
def test_what_kvrocks_passes_over_is_known_as_such(name: str) -> None:
    assert is_ignored(name)
    assert name not in DIRECTIVES


def test_nobody_sets_a_directive_twice() -> None:
    assert DIRECTIVES.keys() & OWNED.keys() == set()
    assert DIRECTIVES.keys() & PER_STORE.keys() == set()


def test_every_default_is_accepted_and_canonical() -> None:
    assert {name: each.default for name, each in DIRECTIVES.items()} == {
        name: each.canonical(each.default) for name, each in DIRECTIVES.items()
    }


def test_live_directives_are_told_from_those_that_need_a_start() -> None:
    names = ["workers", "port", "max-db-size", "rocksdb.block_cache_size", "rocksdb.write_buffer_size"]
    assert live_names(names) == ["workers", "max-db-size", "rocksdb.write_buffer_size"]


# --- Kvrocks itself ---


def read(*lines: str) -> str:
    """What Kvrocks says of these lines. The last one always ends it, before it starts anything."""
    done = subprocess.run(
        [str(BINARY), "-c", "-"],
        input="\n".join([*lines, "port 99999999", ""]),
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    return done.stdout


@KVROCKS
def test_kvrocks_knows_every_directive_and_takes_its_default() -> None:
    lines = [f"{each.name} {each.default}" for each in (*DIRECTIVES.values(), *PER_STORE.values()) if each.default]
    said = read(*lines)
    assert "WARNING" not in said
    assert f"at line #L{len(lines) + 1}: failed to set value of field 'port'" in said


@KVROCKS
@pytest.mark.parametrize("directive", NUMBERS, ids=lambda each: each.name)
def test_kvrocks_has_the_same_range(directive: Directive) -> None:
    inside = read(f"{directive.name} {directive.lowest}", f"{directive.name} {directive.highest}")
    assert "at line #L3" in inside
    for outside in (directive.lowest - 1, directive.highest + 1):
        if abs(outside) < 2**31 - 1 or directive.highest > 2**31:
            assert "at line #L1" in read(f"{directive.name} {outside}"), outside


@KVROCKS
@pytest.mark.parametrize(
    "directive", [each for each in DIRECTIVES.values() if each.choices], ids=lambda each: each.name
)
def test_kvrocks_has_the_same_choices(directive: Directive) -> None:
    said = read(*(f"{directive.name} {choice}" for choice in directive.choices))
    assert f"at line #L{len(directive.choices) + 1}" in said
    refused = read(f"{directive.name} nonsense")
    offered = re.search(r"acceptable values are (.*)", refused)
    assert offered
    assert set(re.findall(r"'(\w+)'", offered[1])) == set(directive.choices)


@KVROCKS
def test_this_is_the_version_that_the_schema_is_of() -> None:
    said = subprocess.run([str(BINARY), "--version"], capture_output=True, text=True, check=True).stdout
    if f" {VERSION} " not in f"{said.strip()} ":
        pytest.skip(f"the binary says {said.strip()}")
    assert "WARNING: 'rocksdb.partition_filters'" in read("rocksdb.partition_filters yes")
