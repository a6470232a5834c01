"""Other load generators: what they are given, and how what they write is read. The programs are stand-ins."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving import drivers
from kvstrata.bench.serving.drivers import aiperf, program, vllm
from kvstrata.bench.serving.drivers.aiperf import AIPerfDriver
from kvstrata.bench.serving.drivers.vllm import VllmDriver
from kvstrata.bench.serving.model import Conversation, Endpoint, Turn, Workload

ENDPOINT = Endpoint("http://127.0.0.1:1", "m", timeout_s=7, headers={"X-A": "b"})
BEGIN_NS = 1_795_771_243_000_000_000
PERF_NS = 5_000_000_000


def workload(count: int = 2, *, active: int | None = 2, turns: int = 1) -> Workload:
    held = (Conversation(f"c{n}", (Turn((1, 2, 3), 3, 4),) * turns, None if active else n * 0.5) for n in range(count))
    return Workload("test", tuple(held), active, 1)


def record(name: str, sent_s: float, pieces: list[tuple[float, str]], **more: Any) -> str:
    """A line of AIPerf 0.13's raw export, as far as it is read."""
    start = BEGIN_NS + int(sent_s * 1e9)
    metadata = {
        "conversation_id": name,
        "request_start_ns": start,
        "request_end_ns": start + int((pieces[-1][0] if pieces else 0.5) * 1e9),
        "was_cancelled": False,
    }
    responses = [
        {"perf_ns": PERF_NS + int(at * 1e9), "packets": [{"name": "data", "value": value}]} for at, value in pieces
    ]
    entry = {"metadata": metadata | more.pop("metadata", {}), "start_perf_ns": PERF_NS, "responses": responses, **more}
    return json.dumps(entry) + "\n"


def piece(*ids: int, finish: str | None = None) -> str:
    return json.dumps({"choices": [{"index": 0, "text": "x", "token_ids": ids, "finish_reason": finish}]})


WHOLE = [
    (0.2, piece(7)),
    (0.25, piece(8, 9)),
    (0.3, piece(10, finish="length")),
    (0.3, json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})),
    (0.3, "[DONE]"),
]


def stand_in(folder: Path, code: str) -> Path:
    """A program that keeps what it was given in argv.json and then runs `code`."""
    path = folder / "program"
    keeps = f"json.dump(sys.argv[1:], open({str(folder / 'argv.json')!r}, 'w'))"
    path.write_text(f"#!{sys.executable}\nimport json, os, pathlib, sys, time\n{keeps}\n{code}\n")
    path.chmod(0o755)
    return path


def given(folder: Path) -> dict[str, str]:
    """The flags that the stand-in was given, and each's next word."""
    words = json.loads((folder / "argv.json").read_text())
    return dict(zip(words, [*words[1:], ""], strict=True))


# AIPerf.


def test_what_aiperf_is_given_is_the_request_that_our_own_driver_sends(tmp_path: Path) -> None:
    aiperf.write_input(tmp_path / "in.jsonl", ENDPOINT, workload(active=None), frozenset({"c1"}))
    first, second = (json.loads(line) for line in (tmp_path / "in.jsonl").read_text().splitlines())
    assert (first["session_id"], first["timestamp"], second["timestamp"]) == ("c0", 0.0, 500.0)
    assert first["payload"]["prompt"] == [1, 2, 3]
    assert (first["payload"]["max_tokens"], first["payload"]["ignore_eos"]) == (4, True)
    assert "return_token_ids" not in first["payload"]
    assert second["payload"]["return_token_ids"] is True


def test_aiperfs_records_become_samples_with_every_tokens_time(tmp_path: Path) -> None:
    path = tmp_path / "raw.jsonl"
    path.write_text(record("c1", 1.0, WHOLE) + record("c0", 0.0, WHOLE))
    load = aiperf.read_records(path, workload(), frozenset({"c1"}), 60)
    first, second = load.samples
    assert (first.conversation, first.started_s, first.error) == ("c0", 0.0, None)
    assert first.ttft_s == pytest.approx(0.2)
    assert first.itl_s == pytest.approx((0.05, 0.0, 0.05))
    assert first.e2e_s == pytest.approx(0.3)
    assert second.started_s == pytest.approx(1.0)
    assert (second.prompt_tokens, second.output_tokens) == (3, 4)
    assert (first.output_ids, second.output_ids) == (None, (7, 8, 9, 10))
    assert load.duration_s == pytest.approx(1.3)


def test_aiperfs_open_loop_times_count_from_when_requests_were_due(tmp_path: Path) -> None:
    path = tmp_path / "raw.jsonl"
    path.write_text(record("c0", 0.0, WHOLE) + record("c1", 0.7, WHOLE))
    load = aiperf.read_records(path, workload(active=None), frozenset(), 60)
    assert [sample.scheduled_s for sample in load.samples] == [0.0, 0.5]
    assert load.samples[1].ttft_s == pytest.approx(0.2 + 0.2)
    assert load.samples[1].e2e_s == pytest.approx(0.3 + 0.2)
    assert load.client.late_p99_s == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (record("c0", 0, [], error={"code": 503, "type": "X", "message": "no room"}), "HTTP 503: no room"),
        (record("c0", 0, [], error={"code": 499, "type": "TimeoutError", "message": "T"}), "timeout: no end within"),
        (record("c0", 0, [], error={"code": None, "type": "ServerDisconnectedError", "message": "S"}), "ServerDis"),
        (record("c0", 0, WHOLE[:2], metadata={"was_cancelled": True}), "deadline: cut off after 60 s"),
        (record("c0", 0, [*WHOLE[:2], (0.3, "[DONE]")]), "short: 3 of 4 tokens"),
        ("", "not sent: the deadline of 60 s passed"),
    ],
)
def test_requests_that_aiperf_could_not_send_or_that_failed_are_samples(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "raw.jsonl"
    path.write_text(line)
    (sample,) = aiperf.read_records(path, workload(1), frozenset(), 60).samples
    assert sample.error is not None
    assert sample.error.startswith(said)


def test_aiperf_is_run_with_the_workloads_concurrency_and_count(tmp_path: Path) -> None:
    lines = record("c0", 0.0, WHOLE) + record("c1", 0.0, WHOLE) + record("c2", 0.0, WHOLE)
    code = f"""
out = pathlib.Path(sys.argv[sys.argv.index('--artifact-dir') + 1])
out.mkdir()
(out / 'profile_export_raw.jsonl').write_text({lines!r})
"""
    driver = AIPerfDriver(stand_in(tmp_path, code), tmp_path)
    load = driver.run(ENDPOINT, workload(3), frozenset(), 60)
    flags = given(tmp_path)
    assert all(sample.ok for sample in load.samples)
    assert (flags["--concurrency"], flags["--request-count"], flags["--url"]) == ("2", "3", ENDPOINT.url)
    assert (flags["--benchmark-duration"], flags["--request-timeout-seconds"]) == ("60", "7")
    assert flags["--header"] == "X-A:b"
    assert "--fixed-schedule" not in flags


def test_aiperf_is_run_by_the_clock_for_open_loop(tmp_path: Path) -> None:
    driver = AIPerfDriver(stand_in(tmp_path, "sys.exit('no')"), tmp_path)
    with pytest.raises(BenchError, match="aiperf ended with 1; it said last:\nno"):
        driver.run(ENDPOINT, workload(active=None), frozenset(), 60)
    assert "--fixed-schedule" in given(tmp_path)
    assert "--concurrency" not in given(tmp_path)


def test_aiperf_that_leaves_nothing_or_something_else_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="left no raw export"):
        aiperf.read_records(tmp_path / "none.jsonl", workload(), frozenset(), 60)
    (tmp_path / "other.jsonl").write_text('{"metadata": {}}\n')
    with pytest.raises(BenchError, match=r"not what version 0\.13 writes"):
        aiperf.read_records(tmp_path / "other.jsonl", workload(), frozenset(), 60)


def test_aiperf_refuses_conversations_of_more_than_one_turn(tmp_path: Path) -> None:
    driver = AIPerfDriver(tmp_path, tmp_path)
    assert driver.refuses(workload()) is None
    assert driver.refuses(workload(active=None)) is None
    with pytest.raises(BenchError, match="aiperf cannot send test: its completions endpoint takes one turn only"):
        driver.run(ENDPOINT, workload(turns=2), frozenset(), 60)


# vllm bench serve.


def result(**changed: Any) -> dict[str, Any]:
    good = {
        "duration": 2.0,
        "start_times": [100.0, 100.5],
        "ttfts": [0.2, 0.3],
        "itls": [[0.1, 0.1, 0.1], [0.1, 0.1, 0.1]],
        "latencies": [0.5, 0.6],
        "input_lens": [3, 3],
        "output_lens": [4, 4],
        "errors": ["", ""],
    }
    return good | changed


def model(folder: Path) -> Path:
    vocab = {letter: number for number, letter in enumerate("abcdef")}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab, "merges": []}}))
    return folder


def test_vllms_result_becomes_samples(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(
        json.dumps(result(errors=["", "Traceback\nValueError: oops\n"], output_lens=[4, 0]))
    )
    first, second = vllm.read_result(tmp_path / "r.json", workload()).samples
    assert (first.started_s, first.ttft_s, first.e2e_s, first.error) == (0.0, 0.2, 0.5, None)
    assert first.itl_s == (0.1, 0.1, 0.1)
    assert (second.started_s, second.error) == (0.5, "ValueError: oops")


def test_an_answer_that_vllm_counts_short_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(result(output_lens=[4, 3])))
    assert vllm.read_result(tmp_path / "r.json", workload()).samples[1].error == "short: 3 of 4 tokens"


def test_vllm_is_run_with_prompts_as_text_in_the_workloads_order(tmp_path: Path) -> None:
    code = f"""
data = pathlib.Path(sys.argv[sys.argv.index('--dataset-path') + 1]).read_text()
pathlib.Path({str(tmp_path / "data")!r}).write_text(data)
out = pathlib.Path(sys.argv[sys.argv.index('--result-dir') + 1])
(out / 'result.json').write_text({json.dumps(result())!r})
"""
    load = VllmDriver(stand_in(tmp_path, code), model(tmp_path)).run(ENDPOINT, workload(), frozenset(), 60)
    flags = given(tmp_path)
    assert [json.loads(line) for line in (tmp_path / "data").read_text().splitlines()] == [
        {"prompt": "bcd", "output_tokens": 4}
    ] * 2
    assert (flags["--max-concurrency"], flags["--num-prompts"]) == ("2", "2")
    assert {"--ignore-eos", "--disable-shuffle", "--skip-chat-template", "--save-detailed"} <= flags.keys()
    assert load.driver == "vllm"


def test_vllm_refuses_what_it_cannot_send(tmp_path: Path) -> None:
    driver = VllmDriver(tmp_path, model(tmp_path))
    assert driver.refuses(workload()) is None
    assert "before the first is sent" in str(driver.refuses(workload(turns=2)))
    assert "makes up anew" in str(driver.refuses(workload(active=None)))
    with pytest.raises(BenchError, match="keeps no token ids"):
        driver.run(ENDPOINT, workload(), frozenset({"c0"}), 60)


def test_a_result_of_another_form_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(BenchError, match=r"not what version 0\.31 writes"):
        vllm.read_result(tmp_path / "r.json", workload())
    with pytest.raises(BenchError, match="left no result"):
        vllm.read_result(tmp_path / "none.json", workload())


# Programs, and the choice of one.


def _runs(state: Path) -> bool:
    try:
        return state.read_text().split(")")[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_program_that_does_not_end_is_stopped_with_all_it_started(tmp_path: Path) -> None:
    begun = time.monotonic()
    code = f"""
import subprocess
child = subprocess.Popen(['sleep', '60'])
pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(child.pid))
time.sleep(60)
"""
    said = program.run("tool", [str(stand_in(tmp_path, code))], tmp_path, 2.0, {})
    assert said == "tool had not ended after 2 s and was stopped"
    assert time.monotonic() - begun < 50
    state = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    # On a busy machine a killed process takes a moment to be gone.
    deadline = time.monotonic() + 20
    while _runs(state):
        assert time.monotonic() < deadline, f"{state} still runs"
        time.sleep(0.02)


def test_a_program_that_cannot_be_started_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="tool: cannot start"):
        program.run("tool", [str(tmp_path / "none")], tmp_path, 1, {})


def test_drivers_are_created_by_name(tmp_path: Path) -> None:
    path = stand_in(tmp_path, "")
    assert drivers.create().name == "own"
    assert drivers.create("aiperf", model=tmp_path, aiperf_path=path).name == "aiperf"
    assert drivers.create("vllm", model=tmp_path, vllm_path=path).name == "vllm"


@pytest.mark.parametrize(
    ("name", "named", "said"),
    [
        ("wrk", {}, "given 'wrk'; allowed: own, aiperf, vllm"),
        ("aiperf", {}, "needs the folder of the served model"),
        ("aiperf", {"model": Path("/"), "aiperf_path": Path("/none")}, "no AIPerf: given /none, and none on PATH"),
        ("vllm", {"model": Path("/"), "vllm_path": Path("/none")}, "no vllm: given /none, and none on PATH"),
    ],
)
def test_a_driver_that_cannot_be_had_is_said_to_be_missing(name: str, named: dict[str, Path], said: str) -> None:
    with pytest.raises(BenchError) as error:
        drivers.create(name, **named)
    assert said in str(error.value)
