"""The run loop over a stack and a driver that only pretend: what is started, when, and what is kept of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.configurations import Configuration, Sizes, preset
from kvstrata.bench.serving.model import (
    Conversation,
    Counters,
    Endpoint,
    Json,
    Load,
    RequestSample,
    Turn,
    Workload,
)
from kvstrata.bench.serving.record import Journal, Record, read_journal, to_json
from kvstrata.bench.serving.run import Plan, Runner, order
from kvstrata.bench.serving.stack import Running

WORKLOAD = Workload("poc", (Conversation("c1", (Turn((1, 2, 3), 3, 2),)),), 1, 7)
OTHER = replace(WORKLOAD, name="longdoc")
SAMPLE = RequestSample("c1", 0, 0.0, 0.0, 0.1, (0.01,), 0.2, 3, 2)
NONE, DRAM, SSD = (preset(name, Sizes()) for name in ("none", "dram", "ssd"))


def engine(computed: float, hits: float = 0.0) -> dict[str, float]:
    name = "vllm:prompt_tokens_by_source_total"
    return {f"{name}{{source=local_compute}}": computed, f"{name}{{source=external_kv_transfer}}": hits}


@dataclass
class FakeStack:
    """Says what it was told to do, in order."""

    url: str = "http://127.0.0.1:1"
    did: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    fails: set[str] = field(default_factory=set)
    dies: bool = False
    current: str = ""
    served: float = 0.0
    running: Running = field(init=False)

    def describe(self) -> Mapping[str, Json]:
        return {"kind": "fake"}

    def refuses(self, configuration: Configuration) -> str | None:
        return self.refused.get(configuration.name)

    def start(self, configuration: Configuration) -> Running:
        self.did.append(f"start {configuration.name}")
        self.current = configuration.name
        if configuration.name in self.fails:
            raise BenchError("vllm:0 ended with 1 at its start; no such flag")
        endpoint = Endpoint(self.url, "m")
        self.running = Running(configuration, endpoint, 12.0, {"vllm:0": {"port": 1}}, direct=(self.url,))
        return self.running

    def begin(self) -> Counters:
        return {"vllm:0": engine(self.served)}

    def end(self) -> Counters:
        self.served += 3
        return {"vllm:0": engine(self.served)}

    def settle(self, timeout_s: float) -> str | None:
        self.did.append("settle")
        return None

    def forget_memory(self) -> str | None:
        self.did.append("forget memory")
        return None

    def clear_engines(self) -> None:
        self.did.append("clear engines")

    def clear(self) -> Running:
        self.did.append("clear")
        return self.running

    def alive(self) -> str | None:
        return "lmcache ended with -9" if self.dies else None

    def stop(self) -> None:
        if self.current:
            self.did.append(f"stop {self.current}")
        self.current = ""


@dataclass
class FakeDriver:
    """Answers with the same sample each time, or as told."""

    did: list[str]
    answer: Callable[[], RequestSample] = lambda: SAMPLE
    also: tuple[RequestSample, ...] = ()
    name: str = "fake"

    def refuses(self, workload: Workload) -> str | None:
        return None

    def run(self, endpoint: Endpoint, workload: Workload, sample_outputs: frozenset[str], deadline_s: float) -> Load:
        self.did.append(f"load {workload.name}")
        return Load(self.name, (self.answer(), *self.also), 1.0)


def plan(stack: FakeStack, *configurations: Configuration, **changes: Any) -> Plan:
    wanted: dict[str, Any] = {"rounds": 1, "questions": 0, **changes}
    return Plan(
        configurations, wanted.pop("workloads", (WORKLOAD,)), wanted.pop("driver", FakeDriver(stack.did)), **wanted
    )


def measured(wanted: Plan, stack: FakeStack, folder: Path, record: Record | None = None) -> Record:
    record = record or Record("now", wanted.to_json())
    journal = Journal(folder / "journal.jsonl")
    journal.begin(record)
    Runner(wanted, stack, record, journal, lambda _: None).run()
    return record


def test_each_round_begins_with_another_configuration() -> None:
    rows = [[c.name for c in order([NONE, DRAM, SSD], turn)] for turn in (1, 2, 3, 4)]
    assert rows == [["none", "dram", "ssd"], ["dram", "ssd", "none"], ["ssd", "none", "dram"], ["none", "dram", "ssd"]]


def test_a_configuration_is_started_empty_loaded_cold_settled_loaded_warm_and_stopped(tmp_path: Path) -> None:
    stack = FakeStack()
    record = measured(plan(stack, NONE, SSD), stack, tmp_path)
    assert stack.did == [
        *["start none", "load poc", "settle", "load poc", "stop none"],
        *["start ssd", "load poc", "settle", "forget memory", "load poc", "stop ssd"],
    ]
    assert [(p.configuration, p.round, p.pass_) for p in record.phases] == [
        *[("none", 1, "cold"), ("none", 1, "warm"), ("ssd", 1, "cold"), ("ssd", 1, "warm")]
    ]
    assert record.complete
    assert [start.seconds for start in record.starts] == [12.0, 12.0]
    assert record.phases[0].tiers is not None
    assert record.phases[0].tiers.computed == 3


def test_tiers_are_emptied_between_workloads_and_not_between_passes(tmp_path: Path) -> None:
    stack = FakeStack()
    measured(plan(stack, NONE, workloads=(WORKLOAD, OTHER)), stack, tmp_path)
    assert [act for act in stack.did if act.startswith(("load", "clear"))] == [
        *["load poc", "load poc", "clear", "load longdoc", "load longdoc"]
    ]


def test_what_cannot_run_is_told_and_the_others_are_measured(tmp_path: Path) -> None:
    stack = FakeStack(refused={"dram": "needs a GPU"})
    record = measured(plan(stack, NONE, DRAM), stack, tmp_path)
    assert [(entry.configuration, entry.reason) for entry in record.not_run] == [("dram", "needs a GPU")]
    assert record.complete
    assert "start dram" not in stack.did


def test_a_failed_start_is_recorded_stopped_and_does_not_end_the_run(tmp_path: Path) -> None:
    stack = FakeStack(fails={"dram"})
    record = measured(plan(stack, DRAM, NONE), stack, tmp_path)
    assert [(f.configuration, f.round, f.error) for f in record.failures] == [
        ("dram", 1, "vllm:0 ended with 1 at its start; no such flag")
    ]
    assert {phase.configuration for phase in record.phases} == {"none"}
    assert stack.did[:2] == ["start dram", "stop dram"]
    assert not record.complete


def test_a_part_that_dies_during_a_load_spoils_it(tmp_path: Path) -> None:
    stack = FakeStack(dies=True)
    record = measured(plan(stack, NONE), stack, tmp_path)
    assert record.phases == []
    assert "during poc, cold: lmcache ended with -9" in record.failures[0].error


def test_a_failed_request_is_a_failure_and_the_next_pass_is_measured(tmp_path: Path) -> None:
    stack = FakeStack()
    answers: Iterator[RequestSample] = iter([replace(SAMPLE, error="500"), SAMPLE])
    driver = FakeDriver(stack.did, lambda: next(answers), also=(SAMPLE,))
    record = measured(plan(stack, NONE, driver=driver), stack, tmp_path)
    assert len(record.phases) == 2
    assert "1 of 2 requests failed, the first: 500" in record.failures[0].error
    assert not record.complete


def test_a_load_that_was_cut_off_ends_its_configuration(tmp_path: Path) -> None:
    stack = FakeStack()
    driver = FakeDriver(stack.did, lambda: replace(SAMPLE, error="deadline of 1 s"))
    record = measured(plan(stack, NONE, driver=driver), stack, tmp_path)
    assert len(record.phases) == 1
    assert "1 of them cut off" in record.failures[0].error


def test_a_run_out_of_time_says_where_it_was_cut(tmp_path: Path) -> None:
    stack, clock = FakeStack(), [0.0]

    def answer() -> RequestSample:
        clock[0] += 61.0
        return SAMPLE

    wanted = plan(stack, NONE, DRAM, minutes=1.0, passes=("cold",), driver=FakeDriver(stack.did, answer))
    record, journal = Record("now", wanted.to_json()), Journal(tmp_path / "journal.jsonl")
    journal.begin(record)
    Runner(wanted, stack, record, journal, lambda _: None, clock=lambda: clock[0]).run()
    assert [act for act in stack.did if act.startswith("start")] == ["start none"]
    assert "CUT SHORT after 1 minutes, in round 1" in record.notes


def test_what_would_not_end_in_time_is_not_begun_and_is_measured_by_the_next_run(tmp_path: Path) -> None:
    stack, clock = FakeStack(), [0.0]

    def answer() -> RequestSample:
        clock[0] += 25.0
        return SAMPLE

    # Two answers to the first take 50 s of 90: the second would take as long.
    wanted = plan(stack, NONE, DRAM, minutes=1.5, passes=("cold", "warm"), driver=FakeDriver(stack.did, answer))
    record, journal = Record("now", wanted.to_json()), Journal(tmp_path / "journal.jsonl")
    journal.begin(record)
    Runner(wanted, stack, record, journal, lambda _: None, clock=lambda: clock[0]).run()
    assert [act for act in stack.did if act.startswith("start")] == ["start none"]
    assert record.failures == []
    again = read_journal(tmp_path / "journal.jsonl", wanted.to_json())
    Runner(wanted, stack, again, journal, lambda _: None, clock=lambda: clock[0]).run()
    assert [act for act in stack.did if act.startswith("start")] == ["start none", "start dram"]
    assert not record.complete


# --- the journal ---


def test_a_killed_run_keeps_what_it_measured_and_goes_on_from_there(tmp_path: Path) -> None:
    stack = FakeStack(fails={"ssd"})
    wanted = plan(stack, NONE, SSD)
    measured(wanted, stack, tmp_path)
    journal = tmp_path / "journal.jsonl"
    # A line that was being written when the run was killed.
    with journal.open("a") as file:
        file.write('{"phase": {"configurat')
    record = read_journal(journal, wanted.to_json())
    assert len(record.phases) == 2
    second = FakeStack()
    measured(wanted, second, tmp_path, record)
    assert [act for act in second.did if act.startswith("start")] == ["start ssd"]
    assert record.complete
    assert len(record.phases) == 4


def test_half_a_configuration_is_measured_again_as_a_whole(tmp_path: Path) -> None:
    stack = FakeStack()
    wanted = plan(stack, NONE)
    record = measured(wanted, stack, tmp_path)
    record.phases.pop()
    again = measured(wanted, FakeStack(), tmp_path, record)
    assert [phase.pass_ for phase in again.phases] == ["cold", "warm"]


def test_a_journal_of_another_plan_is_refused_with_the_difference(tmp_path: Path) -> None:
    stack = FakeStack()
    measured(plan(stack, NONE), stack, tmp_path)
    other = plan(stack, NONE, seed=2)
    with pytest.raises(BenchError, match=r"is of another run: seed was 1 and is 2"):
        read_journal(tmp_path / "journal.jsonl", other.to_json())


@pytest.mark.parametrize("text", ["", "{}\n", "not JSON\n", '{"schema": "other/1", "plan": {}, "created": ""}\n'])
def test_what_is_no_journal_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "j").write_text(text)
    with pytest.raises(BenchError, match="--resume"):
        read_journal(tmp_path / "j", {})


def test_the_file_holds_every_sample_and_counter(tmp_path: Path) -> None:
    stack = FakeStack()
    document = json.loads(json.dumps(to_json(measured(plan(stack, NONE), stack, tmp_path))))
    assert document["schema"] == "kvstrata.bench.serve/1"
    assert document["phases"][0]["samples"][0]["conversation"] == "c1"
    assert document["phases"][0]["after"]["vllm:0"]["vllm:prompt_tokens_by_source_total{source=local_compute}"] == 3
    assert document["plan"]["workloads"][0]["working_set"]["live"] > 0


# --- outputs ---


class _Engine(BaseHTTPRequestHandler):
    """Answers any prompt: the tokens that `server.tokens` says, and that `server.cached` of it were cached."""

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        asked = json.loads(self.rfile.read(length))
        server: Any = self.server
        body = {
            "choices": [{"token_ids": server.tokens, "logprobs": {"token_logprobs": [-0.5] * len(server.tokens)}}],
            "usage": {"prompt_tokens": len(asked["prompt"]), "prompt_tokens_details": {"cached_tokens": server.cached}},
        }
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Engine)
    server.tokens, server.cached = [1, 2], 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


class _Caching(FakeStack):
    """Its engine has cached tokens, and maybe wrong ones, in every configuration but `none`."""

    def __init__(self, server: Any, wrong: bool) -> None:
        super().__init__(f"http://127.0.0.1:{server.server_address[1]}")
        self.server, self.wrong = server, wrong

    def start(self, configuration: Configuration) -> Running:
        cached = configuration.name != "none"
        self.server.cached = 2 if cached else 0
        self.server.tokens = [1, 9] if cached and self.wrong else [1, 2]
        return super().start(configuration)


@pytest.mark.parametrize("wrong", [False, True])
def test_outputs_from_a_cache_are_compared_with_the_uncached_run(tmp_path: Path, answering: Any, wrong: bool) -> None:
    stack = _Caching(answering, wrong)
    record = measured(plan(stack, DRAM, NONE, questions=1, dtype="float32", rounds=2), stack, tmp_path)
    (verdict,) = record.verdicts
    assert (verdict.configuration, verdict.ok) == ("dram", not wrong)
    # In the first round alone, and the reference twice; each time with an empty prefix cache.
    assert stack.did.count("clear engines") == 3


def test_without_the_reference_outputs_are_not_checked_and_that_is_said(tmp_path: Path, answering: Any) -> None:
    stack = _Caching(answering, wrong=False)
    record = measured(plan(stack, DRAM, questions=1), stack, tmp_path)
    assert record.verdicts == []
    assert any(note.startswith("NOT CHECKED: that outputs are those of the uncached run") for note in record.notes)
