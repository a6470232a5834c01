"""The conversations, the arms, and what a run writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from kvstrata.bench.errors import BenchError
from kvstrata.contract import record, report, routers
from kvstrata.contract.arms import ARMS, chosen
from kvstrata.contract.disruption import Disruption
from kvstrata.contract.figures import Figures, Locality, Spread
from kvstrata.contract.load import Load
from kvstrata.contract.overhead import Overhead
from kvstrata.contract.run import SHARED, UNIQUE, LoadFigures, Plan, Run
from kvstrata.contract.target import Worker
from kvstrata.contract.throughput import Saturation
from kvstrata.contract.workload import Conversations, Shape
from kvstrata.paths import PROJECT

WORKERS = (Worker("w0", "http://127.0.0.1:1", "tcp://127.0.0.1:2"), Worker("w1", "http://h:3", "tcp://h:4"))


def conversations(salt: str = "s", hot_share: float = 0.0) -> Conversations:
    return Conversations(Shape(hot_share=hot_share), 1, salt, 5.0)


def test_the_same_seed_gives_the_same_conversations_and_another_salt_others_of_the_same_sizes() -> None:
    one, same, other = conversations()[3], conversations()[3], conversations("t")[3]
    assert one == same
    # A router that remembers sessions must not know it from another load.
    assert one.name != other.name
    assert " " not in conversations("a b")[3].name
    assert one.prompt(2) != other.prompt(2)
    assert [turn.think_s for turn in one.turns] == [turn.think_s for turn in other.turns]
    assert abs(len(one.prompt(2)) - len(other.prompt(2))) < 0.2 * len(one.prompt(2))


def test_a_turn_begins_with_the_whole_prompt_before_it() -> None:
    one = conversations()[0]
    assert all(one.prompt(turn + 1).startswith(one.prompt(turn)) for turn in range(len(one.turns) - 1))


def test_about_half_share_one_prefix() -> None:
    made = [conversations(hot_share=0.5)[number] for number in range(200)]
    hot = [one for one in made if one.hot]
    assert 70 < len(hot) < 130
    beginnings = {one.prompt(0)[:500] for one in hot}
    assert len(beginnings) == 1
    assert len({one.prompt(0)[:500] for one in made if not one.hot}) == len(made) - len(hot)


def test_a_slowed_load_is_the_same_but_for_its_times() -> None:
    load = Load(Shape(), 10, 25.0).slowed(10.0)
    assert (load.seconds, load.slots, load.timeout_s) == (250.0, 10, 600.0)
    fast, slow = conversations()[3], Conversations(load.shape, 1, "s", 5.0)[3]
    assert [turn.text for turn in slow.turns] == [turn.text for turn in fast.turns]
    assert [turn.think_s for turn in slow.turns] == pytest.approx([10 * turn.think_s for turn in fast.turns])


def test_slots_begin_in_all_turns() -> None:
    begun = [conversations().begins_at(number, 60) for number in range(60)]
    assert {turn for turn, _ in begun} == set(range(6))


def test_variants_say_their_flags_and_dynamos_parameters() -> None:
    found = chosen("random", ["hot=kv_aware --router-temperature 0.3", "mine=dynamo-kv overlap_score_credit=2"])
    assert [arm.name for arm in found] == ["random", "hot", "mine"]
    assert found[1].flags == ("--router-temperature", "0.3")
    assert found[2].settings == {"overlap_score_credit": 2.0}


@pytest.mark.parametrize(
    ("names", "variants", "told"),
    [
        ("nothing", [], "allowed: kv_aware"),
        ("", [], "one or more"),
        ("random,random", [], "each name once"),
        ("random", ["x"], "NAME=ARM"),
        ("random", ["x=dynamo-kv a=b"], "allowed: a number"),
    ],
)
def test_wrong_arms_are_refused_with_what_is_allowed(names: str, variants: list[str], told: str) -> None:
    with pytest.raises(BenchError, match=told):
        chosen(names, variants)


def test_kv_aware_gets_every_workers_events(tmp_path: Path) -> None:
    place = routers.Place(tmp_path, "model", 16)
    words = routers.command(ARMS["kv_aware"], Path("/env/bin/python"), 9000, 9001, WORKERS, place)
    assert words[:3] == ["/env/bin/python", "-m", "vllm_router.launch_router"]
    assert "http://127.0.0.1:1=tcp://127.0.0.1:2" in words
    assert words[-2:] == ["http://127.0.0.1:1", "http://h:3"]
    assert "--kv-event-source" not in routers.command(ARMS["random"], Path("/p"), 1, 2, WORKERS, place)


def test_dynamo_gets_its_parameters_from_a_file(tmp_path: Path) -> None:
    words = routers.command(ARMS["dynamo-kv"], Path("/p"), 1, 2, WORKERS, routers.Place(tmp_path, "model", 16))
    policy = yaml.safe_load(Path(words[words.index("--router-policy-config") + 1]).read_text())
    (instance,) = policy["worker_selection"]["instances"]
    assert instance["name"] == policy["worker_selection"]["aggregated"]
    assert instance["parameters"] == dict(ARMS["dynamo-kv"].settings)


def a_run() -> Run:
    spread = Spread({"w0": 60, "w1": 40}, {"w0": 600, "w1": 400})
    found = Figures(100, 0, 1, 0, 10.0, 2000, 900, 0.1, 0.2, Locality(60, 50, 48, 40), spread, None, ())
    hot = Figures(100, 0, 1, 0, 10.0, 2000, 1200, 0.1, 0.2, Locality(60, 50, 48, 40), spread, spread, ())
    run = Run(loads=[LoadFigures("cache_aware", 1, UNIQUE, found), LoadFigures("cache_aware", 1, SHARED, hot)])
    run.disruptions["cache_aware"] = [
        Disruption("worker killed", 90, 2, 1, 3, back_s, ((5.0, 0.5), (10.0, 1.0))) for back_s in (10.0, 20.0)
    ]
    run.overheads["cache_aware"] = [Overhead(500.0, 499.0, 4000, 0, 1.0, 2.0, 0.5, 1.2, 0.2, 0.1)]
    run.saturations.append(Saturation("cache_aware", 2, 48, 900, 0, 30.0, 9000, 90000, 45000))
    return run


def test_a_run_can_be_read_back_and_shown(tmp_path: Path) -> None:
    plan = Plan(chosen("cache_aware,random", []), 1, 10.0, 24.0, 60.0)
    host = {"cpu": "CPU", "cores": 2, "memory_bytes": 1 << 33, "kernel": "6"}
    target = {"kind": "mocker", "workers": 2, "versions": {"vllm-router": "0.1.17"}}
    header = {"created": "2026-01-01T00:00:00+00:00", "duration_s": 1.0, "host": host, "target": target}
    file = tmp_path / "run.json"
    file.write_text(json.dumps(record.to_json(a_run(), plan, header)))
    read = record.read(file)
    assert not record.passed(read["verdicts"])
    text = report.markdown([read])
    assert "| 2 | 1 | cache_aware | 96.0% ok | 66.7% | 1.20 ok | 1.20 | 45.0% |" in text
    assert "| 2 | 2 | cache_aware | worker killed | 2 | 180 | 4 | 2 | 6 | 15 s, worst 20 s |" in text
    assert "| cache_aware | 1 | 2 | 500 | 499.00 | 1.00 | 0.50 | 2.00 | 1.20 | 0.80 | 0.20 | 0.10 | 0 |" in text
    assert "| cache_aware | 2 | 48 | 30.0 | 50.0% | 0 |" in text
    console = Console(record=True, width=200)
    report.show(read, console)
    assert "NOT MET cache_aware: disruption" in console.export_text()


def test_a_page_takes_a_report_between_its_marks_and_nowhere_else() -> None:
    page = "a\n<!-- kvstrata bench routing --report -->\nold\n<!-- end -->\nb\n"
    once = report.into(page, "new\n")
    assert "old" not in once
    assert once.startswith("a\n")
    assert once.endswith("<!-- end -->\nb\n")
    assert report.into(once, "new\n") == once
    with pytest.raises(BenchError, match="no lines"):
        report.into("a\n", "new\n")


@pytest.mark.parametrize("sites", [False, True])
def test_the_page_shows_the_results_that_are_kept(sites: bool) -> None:
    files = sorted((PROJECT / "benchmarks" / "results").glob("routing-*.json"))
    kept = [run for run in map(record.read, files) if report.of_sites([run]) is sites]
    page = (PROJECT / "docs" / "routing.md").read_text()
    assert kept
    assert report.into(page, report.markdown(kept), sites=sites) == page, (
        "kvstrata bench routing --report FILE --report ... --into docs/routing.md, those of sites apart"
    )


def test_another_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text('{"schema": "kvstrata.bench.store/1"}')
    with pytest.raises(BenchError, match="no run of"):
        record.read(file)
