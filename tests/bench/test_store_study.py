from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvstrata.bench.errors import BenchError
from kvstrata.bench.profile import TUNED_MALLOC, environment, render
from kvstrata.bench.sizes import KIB, MIB
from kvstrata.bench.study import DEFAULT_STUDY, dram_baseline, for_redis, read_study
from kvstrata.kvrocks import profiles
from kvstrata.paths import PROJECT
from tests.bench.samples import ODD, SETUP


@pytest.fixture
def edited(tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], None]], Path]:
    """The shipped study with a change."""

    def edit(change: Callable[[dict[str, Any]], None]) -> Path:
        data = yaml.safe_load(DEFAULT_STUDY.read_text())
        change(data)
        path = tmp_path / "study.yml"
        path.write_text(yaml.safe_dump(data))
        return path

    return edit


def test_the_shipped_study_varies_every_axis_of_the_store() -> None:
    assert {
        "value",
        "layout",
        "allocator",
        "connections",
        "pipeline",
        "instances",
        "blob_files",
        "wal",
        "compression",
        "block_size",
        "memtables",
        "compaction",
    } <= set(read_study().axes)


def test_the_shipped_study_spans_values_from_64_kib_to_32_mib() -> None:
    sizes = {setup.value_bytes for setup in read_study().setups()}
    assert (min(sizes), max(sizes)) == (64 * KIB, 32 * MIB)


def test_no_two_setups_of_the_shipped_study_are_the_same() -> None:
    setups = read_study().setups()
    assert len({setup.name for setup in setups}) == len(setups)
    what = [
        (s.value_bytes, s.layout, s.connections, s.pipeline, s.instances, s.allocator, sorted(s.directives.items()))
        for s in setups
    ]
    assert [entry for entry in what if what.count(entry) > 1] == []


def test_a_variation_changes_one_thing_and_keeps_the_rest_of_the_base() -> None:
    study = read_study()
    (off,) = study.axes["blob_files"]
    changed = {name: value for name, value in off.directives.items() if study.base.directives[name] != value}
    assert changed == {"rocksdb.enable_blob_files": "no"}
    assert (off.value_bytes, off.connections) == (study.base.value_bytes, study.base.connections)


def test_the_base_is_what_the_role_deploys_but_for_the_network() -> None:
    network = {"maxclients", "timeout", "tcp-backlog", "slowlog-log-slower-than"}
    deployed = {name: str(value) for name, value in profiles.PROFILES[profiles.DEFAULT].items() if name not in network}
    assert dict(read_study().base.directives) == deployed


def test_the_tuned_allocator_is_what_the_role_deploys() -> None:
    defaults = yaml.safe_load((PROJECT / "roles" / "kvrocks" / "defaults" / "main.yml").read_text())
    assert defaults["kvrocks_malloc_conf"] == TUNED_MALLOC


def test_only_directives_drop_those_of_the_base() -> None:
    assert dict(read_study().axes["profile"][0].directives) == {"workers": "8"}


def test_axes_select_and_the_base_always_stays() -> None:
    study = read_study()
    assert [setup.name for setup in study.setups(["layout"])] == ["base", "layout: string"]
    assert study.setups([]) == [study.base]


def test_an_unknown_axis_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BenchError, match=r"unknown axis moon; allowed: value, layout"):
        read_study().setups(["layout", "moon"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["base"].update(colour="red"), "base: unknown colour; allowed: allocator"),
        (lambda d: d["base"].pop("layout"), "base: layout missing"),
        (lambda d: d["base"].update(layout="list"), "layout is 'list'; allowed: hash, string"),
        (lambda d: d["base"].update(value="1MB"), "base: value: '1MB' is no size"),
        (lambda d: d["base"].update(value="1KiB"), "value is 1KiB; allowed: 4 KiB to 256 MiB"),
        (lambda d: d["base"].update(connections=0), "connections is 0; allowed: 1 to 1024"),
        (lambda d: d["base"].update(pipeline="4"), "pipeline is '4'; allowed: 1 to 256"),
        (lambda d: d["axes"]["instances"].update(many={"instances": 9}), "8 connections cannot reach 9 instances"),
        (lambda d: d.pop("axes"), "must have exactly base, axes and quick"),
        (lambda d: d.update(quick=["moon"]), "unknown axis moon"),
    ],
)
def test_a_study_that_cannot_be_meant_is_refused(
    edited: Callable[[Callable[[dict[str, Any]], None]], Path], change: Callable[[dict[str, Any]], None], message: str
) -> None:
    with pytest.raises(BenchError, match=message):
        read_study(edited(change))


def test_a_missing_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="nowhere"):
        read_study(tmp_path / "nowhere.yml")


def test_redis_is_asked_only_what_varies_the_load() -> None:
    asked = for_redis(read_study().setups(["layout", "wal", "value", "compression"]))
    assert {setup.axis for setup in asked} == {"base", "layout", "value"}
    assert all(setup.server == "redis" and not setup.directives for setup in asked)


def test_the_configuration_listens_on_loopback_alone_and_holds_every_directive(tmp_path: Path) -> None:
    lines = render(SETUP, 7000, tmp_path).splitlines()
    assert [line for line in lines if line.startswith("bind")] == ["bind 127.0.0.1"]
    assert {"port 7000", f"dir {tmp_path}", "workers 8", "rocksdb.compression no"} <= set(lines)


def test_the_dram_baseline_persists_nothing_and_has_no_directive_of_kvrocks(tmp_path: Path) -> None:
    lines = render(dram_baseline(SETUP), 7000, tmp_path).splitlines()
    assert {'save ""', "appendonly no", "bind 127.0.0.1"} <= set(lines)
    assert not any("rocksdb" in line or line.startswith("workers") for line in lines)


def test_the_allocator_is_tuned_only_where_the_setup_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_CONF", "narenas:1")
    assert environment(SETUP)["MALLOC_CONF"] == TUNED_MALLOC
    assert "MALLOC_CONF" not in environment(dram_baseline(SETUP))


@pytest.mark.parametrize(("size", "count"), [(MIB, 32), (64 * KIB, 512), (32 * MIB, 1), (64 * MIB, 1)])
def test_a_hash_holds_one_chunk_of_32_mib(size: int, count: int) -> None:
    assert replace(ODD, value_bytes=size).fields_per_hash == count
