"""Where prompt tokens came from, by what engines and LMCache count."""

from __future__ import annotations

from dataclasses import replace

from kvstrata.bench.serving import counters
from kvstrata.bench.serving.model import RequestSample, TierTokens
from kvstrata.bench.serving.sampling import summarize

VLLM = """
# HELP vllm:prompt_tokens_by_source_total x
vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="local_compute"} 1812.0
vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="local_cache_hit"} 1408.0
vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="external_kv_transfer"} 1280.0
vllm:num_preemptions_total{engine="0",model_name="m"} 3.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="m"} 0.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 2.5
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:cache_config_info{block_size="128",engine="0",num_gpu_blocks="61"} 1.0
python_gc_objects_collected_total{generation="0"} 900.0
"""
# LMCache gives its lookups a label that is empty without a salt.
LMCACHE = """
lmcache_mp_lookup_hit_l1_tokens_total{cache_salt=""} 2560.0
lmcache_mp_lookup_hit_l2_tokens_total{cache_salt=""} 512.0
lmcache_mp_l2_store_submitted_requests_total 7.0
lmcache_mp_l2_store_completed_requests_total{l2_name="plugin"} 5.0
lmcache_mp_l2_store_submitted_objects_chunks_total 70.0
lmcache_mp_l2_store_completed_objects_chunks_total{l2_name="plugin"} 30.0
lmcache_mp_l2_usage_bytes{l2_name="plugin"} 5242880.0
kvstrata_l2_events_total{event="store_stored"} 5.0
kvstrata_l2_latency_seconds_bucket{endpoint="h:1",le="0.001",stage="server"} 4.0
kvstrata_l2_latency_seconds_sum{endpoint="h:1",stage="server"} 0.5
kvstrata_l2_up{endpoint="h:1"} 1.0
"""
SAMPLE = RequestSample("c1", 0, 0.0, 0.0, 0.1, (), 0.2, 4500, 4)


def read() -> dict[str, dict[str, float]]:
    return {"vllm:0": counters.from_vllm(VLLM), "lmcache": counters.from_lmcache(LMCACHE)}


def test_an_engines_counters_are_kept_without_buckets_and_others_metrics() -> None:
    found = counters.from_vllm(VLLM)
    assert found["vllm:prompt_tokens_by_source_total{source=local_compute}"] == 1812
    assert found["vllm:time_to_first_token_seconds_sum"] == 2.5
    assert not [name for name in found if "bucket" in name or "python" in name]


def test_the_room_of_an_engine_is_its_blocks() -> None:
    assert counters.from_vllm(VLLM)["kv_capacity_tokens"] == 61 * 128
    unknown = VLLM.replace('num_gpu_blocks="61"', 'num_gpu_blocks="None"')
    assert "kv_capacity_tokens" not in counters.from_vllm(unknown)


def test_the_tier_is_a_source_of_its_own_with_its_stages() -> None:
    found = counters.from_l2(LMCACHE)
    assert found["latency_seconds_sum{endpoint=h:1,stage=server}"] == 0.5
    assert found["latency_seconds_bucket{endpoint=h:1,le=0.001,stage=server}"] == 4
    assert found["events_total{event=store_stored}"] == 5
    assert not [name for name in counters.from_lmcache(LMCACHE) if "kvstrata" in name]


def test_tokens_are_split_over_the_tiers() -> None:
    assert counters.tier_tokens({}, read(), lmcache=True) == TierTokens(hbm=1408, l1=768, l2=512, computed=1812)


def test_what_was_counted_before_does_not_count() -> None:
    before = read()
    assert counters.tier_tokens(before, before, lmcache=True) == TierTokens(0, 0, 0, 0)


def test_l2_is_never_more_than_what_a_connector_brought() -> None:
    after = read()
    after["lmcache"]["lmcache_mp_lookup_hit_l2_tokens_total"] = 99999.0
    tiers = counters.tier_tokens({}, after, lmcache=True)
    assert tiers is not None
    assert (tiers.l1, tiers.l2) == (0, 1280)


def test_without_lmcache_the_connectors_tokens_are_the_engines_own_offloading() -> None:
    assert counters.tier_tokens({}, {"vllm:0": read()["vllm:0"]}, lmcache=False) == TierTokens(1408, 1280, 0, 1812)


def test_several_engines_are_one() -> None:
    one = read()["vllm:0"]
    tiers = counters.tier_tokens({}, {"vllm:0": one, "vllm:1": one}, lmcache=False)
    assert tiers == TierTokens(2816, 2560, 0, 3624)


def test_without_an_engine_nothing_is_said() -> None:
    assert counters.tier_tokens({}, {"lmcache": {}}, lmcache=True) is None
    assert "not known" in str(counters.disagreement(None, [SAMPLE]))


def test_tiers_that_add_up_are_not_remarked() -> None:
    tiers = counters.tier_tokens({}, read(), lmcache=True)
    assert counters.disagreement(tiers, [SAMPLE]) is None


def test_tiers_that_do_not_add_up_are_told_with_both_sums() -> None:
    tiers = counters.tier_tokens({}, read(), lmcache=True)
    told = counters.disagreement(tiers, [replace(SAMPLE, prompt_tokens=4000)])
    assert told is not None
    assert "4500 prompt tokens" in told
    assert "had 4000" in told


def test_requests_that_failed_are_named_as_a_cause() -> None:
    tiers = counters.tier_tokens({}, read(), lmcache=True)
    told = counters.disagreement(tiers, [replace(SAMPLE, error="deadline")])
    assert "1 failed ones may have been counted" in str(told)


def test_preemptions_are_told() -> None:
    assert "3 preemptions" in str(counters.preemptions({}, read()))
    assert counters.preemptions(read(), read()) is None


def test_chunks_that_stores_have_not_acknowledged_are_counted() -> None:
    assert counters.unsettled(counters.from_lmcache(LMCACHE)) == 2


def test_numbers_of_info_are_kept_and_words_are_not() -> None:
    found = counters.from_info("# Server\r\nredis_version:7.0\r\nused_memory:100\r\nrole:master\r\nrate:1.5\r\n")
    assert found == {"redis_version": 7.0, "used_memory": 100.0, "rate": 1.5}


def test_gpus_are_summed_up_with_their_energy() -> None:
    lines = ["0, 50, 300.0, 1000, 1980, 40\n", "0, 100, 500.0, 3000, 1980, 50\n", "1, 0, [N/A], 10, 345, 30\n", "x\n"]
    found = summarize(lines)
    assert found["gpu:0"]["utilisation_percent_mean"] == 75
    assert found["gpu:0"]["memory_used_mib_max"] == 3000
    assert found["gpu:0"]["energy_j"] == 800
    assert "energy_j" not in found["gpu:1"]
