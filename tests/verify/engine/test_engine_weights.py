"""engine.weights: other weights under the same path and name are named, on the node that has them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from kvstrata.verify import weights
from kvstrata.verify.check import Check, Status, UnmetError
from kvstrata.verify.context import SiteContext
from kvstrata.verify.layers import engine
from kvstrata.verify.shell import Completed
from kvstrata.verify.weights import files, judge, on_node, record
from kvstrata.verify.weights.files import ModelFiles
from tests.verify.fakes.shell import FakeShell
from tests.verify.fakes.site import Site

OTHER = {"model.safetensors": {"size": 1000, "sha256": "cc"}, "config.json": {"size": 10, "sha256": "bb"}}


def context(site: Site, names: Sequence[str] = ()) -> SiteContext:
    contexts = {name: site.context(name) for name in names or site.nodes}
    earlier = [check for ctx in contexts.values() for check in engine.checks(ctx)]
    return SiteContext(site.cluster, contexts, earlier, lambda text: None, 5, "seed")


def compared(site: Site, names: Sequence[str] = ()) -> dict[str, Check]:
    return {check.host: check for check in weights.checks(context(site, names))}


def statuses(checks: dict[str, Check]) -> dict[str, Status]:
    return {host: check.status for host, check in checks.items()}


def test_equal_weights_pass_and_are_recorded(site: Site) -> None:
    first = compared(site)
    assert statuses(first) == {"node1": Status.PASS, "node2": Status.PASS}
    assert "the same on all nodes; answers within 0.0e+00 nats of the others" in first["node1"].seen
    known = record.load(site.cluster.verify.state_dir)
    assert [(its.name, its.revision) for its in known] == [("m", "")]
    assert known[0].answers is not None
    again = compared(site)
    assert f"as recorded {known[0].recorded_at}; answers within 0.0e+00 nats of the record" in again["node2"].seen
    assert record.load(site.cluster.verify.state_dir) == known


def test_files_swapped_under_a_running_engine_are_named_on_their_node(site: Site) -> None:
    compared(site)
    site.nodes["node2"].files = OTHER
    checks = compared(site)
    assert statuses(checks) == {"node1": Status.PASS, "node2": Status.FAIL}
    assert "model.safetensors has other content" in checks["node2"].seen
    assert "answers within 0.0e+00 nats of the record" in checks["node2"].seen


def test_files_that_were_swapped_back_after_the_engine_started_are_named_by_its_answers(site: Site) -> None:
    compared(site)
    site.nodes["node2"].shift = 1.0
    checks = compared(site)
    assert statuses(checks) == {"node1": Status.PASS, "node2": Status.FAIL}
    assert checks["node2"].seen.startswith("answers as other weights do: 1.0e+00 nats from those recorded")


def test_a_model_swapped_on_every_node_is_named_on_every_node(site: Site) -> None:
    compared(site)
    for node in site.nodes.values():
        node.files, node.shift = OTHER, 0.5
    checks = compared(site)
    assert statuses(checks) == {"node1": Status.FAIL, "node2": Status.FAIL}
    before = record.load(site.cluster.verify.state_dir)
    compared(site)
    assert record.load(site.cluster.verify.state_dir) == before


def test_another_revision_has_a_record_of_its_own(site: Site) -> None:
    compared(site)
    for node in site.nodes.values():
        node.files = OTHER
    site.document["model"]["revision"] = "two"
    assert statuses(compared(site)) == {"node1": Status.PASS, "node2": Status.PASS}
    assert [its.revision for its in record.load(site.cluster.verify.state_dir)] == ["", "two"]


def test_two_nodes_that_differ_without_a_record_are_both_named_and_nothing_is_recorded(site: Site) -> None:
    site.nodes["node2"].files = OTHER
    checks = compared(site)
    assert statuses(checks) == {"node1": Status.FAIL, "node2": Status.FAIL}
    assert "here, " in checks["node1"].seen
    assert " on node2: model.safetensors has other content; no record tells which are right" in checks["node1"].seen
    assert record.load(site.cluster.verify.state_dir) == []


def test_one_of_three_nodes_is_named_without_a_record(tmp_path: Path) -> None:
    with Site(tmp_path, nodes=3) as site:
        site.nodes["node3"].files = OTHER
        checks = compared(site)
    assert statuses(checks) == {"node1": Status.PASS, "node2": Status.PASS, "node3": Status.FAIL}
    assert "no record tells" not in checks["node3"].seen


def test_nothing_is_recorded_in_a_run_where_an_engine_check_did_not_pass(site: Site) -> None:
    site.document["nodes"][0]["lmcache"]["zmq_port"] = 1
    checks = compared(site)
    assert statuses(checks) == {"node1": Status.PASS, "node2": Status.PASS}
    assert record.load(site.cluster.verify.state_dir) == []


def test_an_engine_that_gave_no_log_probabilities_is_a_skip_that_says_what_is_not_proven(site: Site) -> None:
    del site.engine["node2"].routes["/v1/completions"]
    check = compared(site)["node2"]
    assert check.status is Status.SKIP
    assert check.seen.startswith("NOT CHECKED: what vllm@0.service serves is not proven")


def test_swapped_files_are_named_also_where_the_engine_is_down(site: Site) -> None:
    compared(site)
    del site.engine["node2"].routes["/health"]
    site.nodes["node2"].files = OTHER
    assert compared(site)["node2"].status is Status.FAIL


@pytest.mark.parametrize(
    ("answer", "exit_code", "status", "seen"),
    [
        ("FileNotFoundError: [Errno 2] No such file: '/srv/models/m'", 1, Status.FAIL, "is no folder on the node"),
        ("python3: not found", 127, Status.ERROR, "exited 127"),
        ("{}", 0, Status.FAIL, "holds no file of a model"),
        ("[1]", 0, Status.ERROR, "said no digests"),
    ],
)
def test_a_node_that_has_no_model_or_cannot_say_is_told_apart(
    site: Site, answer: str, exit_code: int, status: Status, seen: str
) -> None:
    shell = site.nodes["node1"].shell
    shell.answers["python3 -c"], shell.exits["python3 -c"] = answer, exit_code
    checks = compared(site)
    assert checks["node1"].status is status
    assert seen in checks["node1"].seen
    assert checks["node2"].status is Status.PASS


def test_a_record_that_cannot_be_written_is_told(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    site.document["verify"]["state_dir"] = str(tmp_path / "file" / "below")
    checks = compared(site)
    assert checks["test"].id == "engine.record"
    assert checks["test"].status is Status.SKIP


def test_answers_to_another_prompt_are_replaced_and_not_compared(site: Site) -> None:
    compared(site)
    folder = site.cluster.verify.state_dir
    text = (folder / record.FILE).read_text()
    digest = record.load(folder)[0].prompt
    (folder / record.FILE).write_text(text.replace(digest, "0" * 64))
    for node in site.nodes.values():
        node.shift = 3.0
    assert statuses(compared(site)) == {"node1": Status.PASS, "node2": Status.PASS}
    assert record.load(folder)[0].prompt == digest


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 2, "models": []}', '{"schema": 1, "models": [{}]}'])
def test_a_broken_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / record.FILE).write_text(text)
    assert record.load(tmp_path) == []


# -- the judgement ---------------------------------------------------------------------------------


def test_differences_name_what_is_missing_added_and_changed() -> None:
    one = ModelFiles({"a": (1, "x"), "b": (2, "y"), "c": (3, "z")})
    other = ModelFiles({"b": (3, "y"), "c": (3, "q"), "d": (4, "w"), "e": (5, "v")})
    assert one.differences(other) == "a added, b has other content (2 bytes, not 3), c has other content and 2 more"
    assert one.differences(one) == ""


@pytest.mark.parametrize(
    ("dtype", "kv_dtype", "expected"),
    [("float32", "auto", 0.02), ("bfloat16", "auto", 0.1), ("float16", "float16", 0.02), ("bfloat16", "fp8", 0.25)],
)
def test_the_tolerance_is_wider_where_numbers_are_coarser(dtype: str, kv_dtype: str, expected: float) -> None:
    assert judge.tolerance(dtype, kv_dtype) == expected


def test_answers_of_another_number_of_tokens_are_another_model() -> None:
    assert judge.apart([1.0], [1.0, 2.0]) == float("inf")
    with pytest.raises(UnmetError, match="by another number of tokens"):
        judge.answers("a", {"a": [1.0], "b": [1.0, 2.0]}, None, 0.1)


def test_answers_within_the_tolerance_are_the_same_model() -> None:
    found = {"a": [1.0, 2.0], "b": [1.05, 2.05]}
    assert judge.answers("a", found, None, 0.1) == "answers within 5.0e-02 nats of the others"


def test_the_engine_that_most_disagree_with_is_named_alone() -> None:
    found = {"a": [1.0], "b": [1.01], "c": [4.0]}
    assert judge.answers("a", found, None, 0.1) == "answers as most engines do"
    with pytest.raises(UnmetError, match="answers differ from those of a by"):
        judge.answers("c", found, None, 0.1)


# -- on the node -----------------------------------------------------------------------------------


def folder(tmp_path: Path, weights_bytes: bytes) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(weights_bytes)
    (tmp_path / "notes.md").write_text("not of the model")
    (tmp_path / ".hidden.json").write_text("{}")
    return tmp_path


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("change", [lambda d: flipped(d, 100), lambda d: flipped(d, len(d) - 1), lambda d: d + b"x"])
def test_the_digest_changes_with_head_end_and_size(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    data = bytes(8 << 20)
    before = on_node.digests(folder(tmp_path, data))
    assert set(before) == {"config.json", "model.safetensors"}
    assert on_node.digests(folder(tmp_path, data)) == before
    after = on_node.digests(folder(tmp_path, change(data)))
    assert after["config.json"] == before["config.json"]
    assert after["model.safetensors"] != before["model.safetensors"]


def test_only_samples_of_a_large_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(4 << 30)
    assert on_node.digests(tmp_path)["model.safetensors"]["size"] == 4 << 30
    before = on_node.digests(tmp_path)
    with path.open("r+b") as file:
        # Between two samples: what a sample cannot see, the engine's answers must tell.
        file.seek((1 << 20) + 70_000)
        file.write(b"x")
    assert on_node.digests(tmp_path) == before


def test_the_nodes_own_python_runs_it(tmp_path: Path) -> None:
    class Here(FakeShell):
        def run(self, argv: Sequence[str], timeout_s: float = 30) -> Completed:
            return run_here(argv, timeout_s)

    found = files.read(Here(), str(folder(tmp_path, bytes(3 << 20))))
    assert found.files["model.safetensors"][0] == 3 << 20
    with pytest.raises(UnmetError, match="no folder on the node"):
        files.read(Here(), str(tmp_path / "absent"))


def run_here(argv: Sequence[str], timeout_s: float) -> Completed:
    done = subprocess.run(list(argv), capture_output=True, text=True, timeout=timeout_s, check=False)
    return Completed(tuple(argv), done.returncode, done.stdout, done.stderr)
