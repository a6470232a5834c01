"""The proof of the tiers: against two fake nodes that share their stores, right and wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kvstrata.cluster import TiersPolicy
from kvstrata.verify import prometheus
from kvstrata.verify.check import Check, Status, UnableError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.http import Service
from kvstrata.verify.tiers import counters, judge, layer, prompt, proof, record
from kvstrata.verify.tiers.counters import Counters
from kvstrata.verify.tiers.layer import TiersOptions, TiersOutcome
from kvstrata.verify.tiers.stream import Streamed, complete
from tests.verify.fakes.site import Code, Site


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "SETTLE_S", 0.3)
    monkeypatch.setattr(proof, "POLL_S", 0.02)


def prove(
    site: Site,
    policy: TiersPolicy = TiersPolicy.ALWAYS,
    seed: str = "seed-1",
    names: Sequence[str] = ("node1", "node2"),
    earlier: Sequence[Check] = (),
    wanted: tuple[str, ...] | None = None,
    timeout_s: float = 0.4,
) -> TiersOutcome:
    contexts: dict[str, NodeContext] = {name: replace(site.context(name), timeout_s=timeout_s) for name in names}
    options = TiersOptions(policy, seed, wanted)
    return layer.run(site.cluster, contexts, site.shells, earlier, options, lambda text: None)


def statuses(outcome: TiersOutcome) -> dict[str, Status]:
    return {check.id.removeprefix("tiers."): check.status for check in outcome.checks}


def seen(outcome: TiersOutcome, check_id: str) -> str:
    return next(check.seen for check in outcome.checks if check.id == f"tiers.{check_id}")


def test_the_tiers_are_proven_on_a_good_site(site: Site) -> None:
    outcome = prove(site)
    assert statuses(outcome) == dict.fromkeys(
        ["cold", "stored", "restart", "restarted", "other_node", "identical", "router"], Status.PASS
    )
    assert [(step.name, step.node, step.hit_tokens) for step in outcome.steps] == [
        ("cold", "node1", 0),
        ("after restart", "node1", 1024),
        ("other node", "node2", 1024),
    ]
    assert all(step.ttft_s > 0 for step in outcome.steps)
    assert "systemctl restart -- lmcache.service vllm@0.service" in site.nodes["node1"].shell.ran
    assert not any("restart" in line for line in site.nodes["node2"].shell.ran)


def test_a_prompt_that_was_seen_before_is_not_cold(site: Site) -> None:
    prove(site, seed="same")
    outcome = prove(site, seed="same")
    assert statuses(outcome)["cold"] is Status.FAIL
    assert statuses(outcome)["stored"] is Status.SKIP


def test_an_engine_without_its_connector_fails_cold(site: Site) -> None:
    site.nodes["node1"].connected = False
    outcome = prove(site)
    assert statuses(outcome)["cold"] is Status.FAIL
    assert "never asked LMCache" in seen(outcome, "cold")


def test_chunks_that_never_reach_the_stores_fail_and_nothing_is_restarted(site: Site) -> None:
    site.nodes["node1"].stores = False
    outcome = prove(site)
    assert statuses(outcome) == {
        "cold": Status.PASS,
        "stored": Status.FAIL,
        "restart": Status.SKIP,
        "restarted": Status.SKIP,
        "other_node": Status.SKIP,
        "identical": Status.SKIP,
    }
    assert "0 chunks of 4 submitted" in seen(outcome, "stored")
    assert not any("restart" in line for line in site.nodes["node1"].shell.ran)


def test_a_restart_that_leaves_the_old_processes_fails(site: Site) -> None:
    site.nodes["node1"].restarts = False
    outcome = prove(site)
    assert statuses(outcome)["restart"] is Status.FAIL
    assert statuses(outcome)["restarted"] is Status.SKIP
    assert statuses(outcome)["other_node"] is Status.PASS
    assert "lmcache.service, vllm@0.service still the old process" in seen(outcome, "restart")


def test_a_restart_that_systemd_refuses_fails(site: Site) -> None:
    site.nodes["node1"].shell.exits["systemctl restart"] = 1
    assert "exited 1" in seen(prove(site), "restart")


def test_a_service_that_does_not_come_back_fails_after_the_deadline(site: Site) -> None:
    def restart(argv: Sequence[str]) -> str:
        site.engine["node1"].routes["/health"] = lambda body: Code(503)
        return ""

    site.nodes["node1"].shell.answers["systemctl restart"] = restart
    outcome = prove(site)
    assert statuses(outcome)["restart"] is Status.FAIL
    assert seen(outcome, "restart") == "not healthy 0.4 s after the restart"


def test_an_l1_that_survives_the_restart_fails(site: Site) -> None:
    site.nodes["node1"].clears_l1 = False
    outcome = prove(site)
    assert statuses(outcome)["restart"] is Status.FAIL
    assert "L1 holds 1000 bytes" in seen(outcome, "restart")


def test_a_prompt_that_does_not_come_back_from_the_stores_fails(site: Site) -> None:
    site.nodes["node1"].loads = False
    outcome = prove(site)
    assert statuses(outcome)["restarted"] is Status.FAIL
    assert seen(outcome, "restarted").startswith("0 of ")
    assert "fewer than 922 tokens were hits" in seen(outcome, "restarted")


def test_what_the_adapter_counted_meanwhile_is_told_with_a_miss(site: Site) -> None:
    node = site.nodes["node1"]
    node.loads = False
    outcome = prove(site)
    assert seen(outcome, "restarted").endswith("; its adapter counts no faults")

    before = 'kvstrata_l2_break_even_cut_chunks_total 0.0\nkvstrata_l2_events_total{event="load_deadline"} 2.0\n'
    after = """kvstrata_l2_break_even_cut_chunks_total 0.0
kvstrata_l2_events_total{event="load_deadline"} 3.0
kvstrata_l2_events_total{event="lookup_hits"} 16.0
kvstrata_l2_events_total{event="lookup_late"} 2.0
kvstrata_l2_break_even_unasked_total 7.0
kvstrata_l2_endpoint_events_total{endpoint="10.0.0.1:6666",event="timeouts"} 1.0
"""
    grown = counters.told(*(counters.troubles(prometheus.parse(text)) for text in (before, after)))
    assert grown == (
        "kvstrata.l2 counted meanwhile: 10.0.0.1:6666 timeouts: 1, load_deadline: 1, "
        "lookups that break-even kept from the stores: 7, lookups that stores answered too late: 2"
    )
    assert counters.told({}, {"cut by break-even": 0}) == "kvstrata.l2 counted no fault meanwhile"


def test_a_node_that_does_not_share_fails(site: Site) -> None:
    site.nodes["node2"].loads = False
    outcome = prove(site)
    assert statuses(outcome)["restarted"] is Status.PASS
    assert statuses(outcome)["other_node"] is Status.FAIL


def test_an_answer_that_differs_fails(site: Site) -> None:
    site.nodes["node2"].output = 8
    outcome = prove(site)
    assert statuses(outcome)["identical"] is Status.FAIL
    assert seen(outcome, "identical") == "token 1 is 7 (cold) and 8 (other node)"


def test_other_traffic_makes_the_proof_an_error_and_not_a_verdict(site: Site) -> None:
    site.nodes["node1"].extra_requests = 2
    outcome = prove(site)
    assert statuses(outcome)["cold"] is Status.ERROR
    assert "repeat without other traffic" in seen(outcome, "cold")


def test_a_router_that_does_not_take_the_engine_back_fails(site: Site) -> None:
    site.router.routes["/v1/chat/completions"] = lambda body: Code(503)
    outcome = prove(site)
    assert statuses(outcome)["router"] is Status.FAIL
    assert "answered 503" in seen(outcome, "router")


def test_with_one_node_the_other_one_is_a_loud_skip(tmp_path: Path) -> None:
    with Site(tmp_path, nodes=1) as site:
        outcome = prove(site, names=["node1"])
        assert statuses(outcome)["restarted"] is Status.PASS
        assert statuses(outcome)["other_node"] is Status.SKIP
        assert "NOT CHECKED: one node only" in seen(outcome, "other_node")
        again = prove(site, TiersPolicy.IF_CHANGED, names=["node1"], seed="two")
        assert statuses(again) == {"proof": Status.PASS, "other_node": Status.SKIP}


# -- whether to run --------------------------------------------------------------------------------


def test_never_is_a_loud_skip_that_sends_nothing(site: Site) -> None:
    outcome = prove(site, TiersPolicy.NEVER)
    assert statuses(outcome) == {"proof": Status.SKIP}
    assert "--tiers never" in seen(outcome, "proof")
    assert site.nodes["node1"].count["requests"] == 0


def test_a_proof_that_still_holds_is_told_and_not_repeated(site: Site) -> None:
    first = prove(site, TiersPolicy.IF_CHANGED)
    ran = len([line for line in site.nodes["node1"].shell.ran if "restart" in line])
    second = prove(site, TiersPolicy.IF_CHANGED, seed="seed-2")
    assert statuses(second) == {"proof": Status.PASS}
    assert "unchanged since (fingerprint" in seen(second, "proof")
    assert second.steps == first.steps
    assert not second.ran
    assert len([line for line in site.nodes["node1"].shell.ran if "restart" in line]) == ran == 1


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("readlink", "/opt/kvstrata/releases/r2"),
        ("sh -c cd /etc/kvstrata", "another  -"),
        ("systemctl cat", "[Service]"),
    ],
)
def test_a_change_on_any_node_repeats_the_proof(site: Site, command: str, answer: str) -> None:
    prove(site, TiersPolicy.IF_CHANGED)
    site.nodes["node2"].shell.answers[command] = answer
    assert prove(site, TiersPolicy.IF_CHANGED, seed="seed-2").ran


def test_a_change_of_the_model_repeats_the_proof_but_a_new_password_or_deadline_does_not(site: Site) -> None:
    prove(site, TiersPolicy.IF_CHANGED)
    site.document["verify"]["timeout_s"] = 99
    site.document["nodes"][0]["stores"][0]["password"] = "rotated"
    site.document["nodes"][0]["ssh"]["port"] = 2222
    assert not prove(site, TiersPolicy.IF_CHANGED, seed="seed-2").ran
    site.document["model"]["dtype"] = "bfloat16"
    assert prove(site, TiersPolicy.IF_CHANGED, seed="seed-3").ran


def test_always_repeats_a_proof_that_still_holds(site: Site) -> None:
    prove(site)
    assert prove(site, seed="seed-2").ran


def test_a_failed_proof_is_not_recorded(site: Site, tmp_path: Path) -> None:
    site.nodes["node2"].loads = False
    assert prove(site).proven_at is None
    assert record.load(tmp_path / "state") is None


def test_a_proof_that_cannot_be_fingerprinted_is_not_recorded_and_says_so(site: Site, tmp_path: Path) -> None:
    del site.nodes["node2"].shell.answers["readlink"]
    outcome = prove(site)
    assert statuses(outcome)["record"] is Status.SKIP
    assert record.load(tmp_path / "state") is None


def test_a_record_that_cannot_be_written_is_said(site: Site, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    assert statuses(prove(site))["record"] is Status.SKIP


def test_a_broken_record_repeats_the_proof(site: Site, tmp_path: Path) -> None:
    prove(site, TiersPolicy.IF_CHANGED)
    (tmp_path / "state" / record.FILE).write_text('{"schema": 1}')
    assert prove(site, TiersPolicy.IF_CHANGED, seed="seed-2").ran


def test_the_record_holds_no_password(site: Site, tmp_path: Path) -> None:
    prove(site)
    assert "secret-pw" not in (tmp_path / "state" / record.FILE).read_text()


def test_nodes_with_failed_checks_are_not_restarted(site: Site) -> None:
    bad = site.context().question("engine.health", "x", "y", "z").error("down")
    outcome = prove(site, earlier=[bad])
    assert statuses(outcome) == {"proof": Status.SKIP}
    assert "checks failed on node1" in seen(outcome, "proof")


def test_the_tier_nodes_can_be_chosen(site: Site) -> None:
    outcome = prove(site, wanted=("node2", "node1"))
    assert [step.node for step in outcome.steps] == ["node2", "node2", "node1"]


def test_tier_nodes_without_an_engine_are_a_loud_skip(site: Site) -> None:
    site.document["nodes"][1]["engines"] = []
    outcome = prove(site, wanted=("node1", "node2"))
    assert "--tier-nodes: node2" in seen(outcome, "proof")


def test_a_site_without_stores_is_a_loud_skip(site: Site) -> None:
    for node in site.document["nodes"]:
        node["stores"] = []
    assert "no store" in seen(prove(site), "proof")


# -- what the counters must say --------------------------------------------------------------------

GOOD = Counters(1, 4100, 4096, 4, 0, 4096, 0, 4096, 16, 0, 0)


def test_hits_of_ninety_percent_from_l2_are_enough() -> None:
    # 4100 tokens hold 16 whole chunks of 256: 3686.4 tokens are 90% of them.
    fifteen = replace(GOOD, external_hits=3840, transferred=3840, l2_hits=3840, l2_loaded_chunks=15)
    assert "3840 of 4100 tokens" in judge.from_store(fifteen, 4100, 256)


@pytest.mark.parametrize(
    ("delta", "problem"),
    [
        (replace(GOOD, external_hits=3584, transferred=3584), "fewer than 3686 tokens were hits"),
        (replace(GOOD, transferred=0), "fewer than 3686 tokens were hits"),
        (replace(GOOD, l2_hits=0), "fewer than 3686 of them from L2"),
        (replace(GOOD, l2_loaded_chunks=3), "loaded fewer than 14 chunks"),
        (replace(GOOD, l1_hits=1), "L1 held some of it"),
        (replace(GOOD, local_hits=128), "the engine's own cache held some"),
    ],
)
def test_hits_that_prove_less_fail(delta: Counters, problem: str) -> None:
    with pytest.raises(UnmetError, match=problem):
        judge.from_store(delta, 4100, 256)


def test_the_last_token_is_never_a_hit() -> None:
    assert judge.whole_chunks(4096, 256) == 15
    assert judge.whole_chunks(4097, 256) == 16


@pytest.mark.parametrize("field", ["external_hits", "transferred", "local_hits"])
def test_a_cold_prompt_must_be_found_nowhere(field: str) -> None:
    delta = Counters(1, 4100, 0, 4100, 0, 0, 0, 0, 0, 0, 0)
    assert judge.cold(delta, 4100)
    with pytest.raises(UnmetError):
        judge.cold(replace(delta, **{field: 1.0}), 4100)


def test_a_request_that_was_never_counted_is_no_verdict() -> None:
    with pytest.raises(UnableError, match="never counted"):
        judge.cold(replace(GOOD, requests=0), 4100)


def answer(*tokens: int, logprob: float = -1.0) -> Streamed:
    return Streamed(0.1, 0.2, tokens, (logprob,) * len(tokens), 10)


def test_log_probabilities_apart_fail_in_fp32_only() -> None:
    answers = {"cold": answer(1, 2), "again": answer(1, 2, logprob=-1.03)}
    with pytest.raises(UnmetError, match="not the KV computed"):
        judge.identical(answers, "float32")
    assert "2 tokens equal in 2 answers" in judge.identical(answers, "bfloat16")


def test_log_probabilities_as_far_apart_as_starts_of_an_engine_are_told() -> None:
    answers = {"cold": answer(1, 2), "again": answer(1, 2, logprob=-1.004)}
    assert "as much as starts of one engine can differ" in judge.identical(answers, "float32")
    assert "starts" not in judge.identical({**answers, "again": answer(1, 2, logprob=-1.0001)}, "float32")


def test_an_answer_of_one_repeated_token_is_told_to_be_a_weak_witness() -> None:
    assert "repeats one token" in judge.identical({"a": answer(5, 5), "b": answer(5, 5)}, "float32")
    assert "repeats" not in judge.identical({"a": answer(5, 6), "b": answer(5, 6)}, "float32")


# -- prompt and stream -----------------------------------------------------------------------------


def engine(site: Site) -> Service:
    ctx = site.context()
    return ctx.service("10.9.0.11", 8000)


@pytest.mark.parametrize("count", [len, lambda text: len(text.split()), lambda text: len(text) // 3 + 1])
def test_a_prompt_has_the_wanted_length_with_any_tokenizer(site: Site, count: Callable[[str], int]) -> None:
    site.engine["node1"].routes["/tokenize"] = lambda body: {"count": count(body["prompt"])}
    built = prompt.build(engine(site), "m", 4096, "seed")
    assert 4096 <= built.tokens <= 4096 + prompt.SLACK_TOKENS
    assert built.tokens == count(built.text)


def test_the_same_seed_makes_the_same_prompt_and_another_one_differs_from_its_first_chunk(site: Site) -> None:
    first, again, other = (prompt.build(engine(site), "m", 1024, seed) for seed in ("a", "a", "b"))
    assert first == again
    assert first.text[:256] != other.text[:256]


@pytest.mark.parametrize(("count", "said"), [(0, "counts 0 tokens"), (1, "no prompt of 100 tokens")])
def test_a_tokenizer_that_does_not_count_is_an_error(site: Site, count: int, said: str) -> None:
    site.engine["node1"].routes["/tokenize"] = lambda body: {"count": count}
    with pytest.raises(UnableError, match=said):
        prompt.build(engine(site), "m", 100, "a")


def test_a_stream_of_too_few_tokens_fails(site: Site) -> None:
    chunk = json.dumps({"choices": [{"token_ids": [1]}]})
    site.engine["node1"].routes["/v1/completions"] = lambda body: iter([chunk, "[DONE]"])
    with pytest.raises(UnmetError, match="1 tokens came, asked for were 2"):
        complete(engine(site), "m", "x", 2, 5)


def test_a_stream_that_breaks_off_fails(site: Site) -> None:
    chunk = json.dumps({"choices": [{"token_ids": [1, 2]}]})
    site.engine["node1"].routes["/v1/completions"] = lambda body: iter([chunk])
    with pytest.raises(UnmetError, match="ended before"):
        complete(engine(site), "m", "x", 2, 5)


def test_an_error_inside_a_stream_fails(site: Site) -> None:
    chunk = json.dumps({"error": {"message": "out of memory"}})
    site.engine["node1"].routes["/v1/completions"] = lambda body: iter([chunk, "[DONE]"])
    with pytest.raises(UnmetError, match="out of memory"):
        complete(engine(site), "m", "x", 2, 5)


def test_a_refused_stream_fails_with_the_status(site: Site) -> None:
    site.engine["node1"].routes["/v1/completions"] = lambda body: Code(400)
    with pytest.raises(UnmetError, match="answered 400"):
        complete(engine(site), "m", "x", 2, 5)
