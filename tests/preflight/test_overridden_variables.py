"""A variable that the playbooks set would be ignored in an inventory: it is refused instead."""

from kvstrata.paths import PROJECT
from kvstrata.preflight.variables import mapped, overridden, unknown


def test_what_the_playbooks_set_may_not_stand_in_an_inventory() -> None:
    [problem] = overridden("node1", {"lmcache_chunk_tokens": 64}, mapped(PROJECT))
    assert str(problem).startswith("node1: lmcache_chunk_tokens is 64; allowed: nothing here, the playbooks set it")


def test_other_role_variables_may() -> None:
    assert overridden("node1", {"vllm_first_port": 8100, "kvrocks_workers": 4}, mapped(PROJECT)) == []


def test_the_value_of_a_misspelt_password_is_not_printed() -> None:
    [problem] = unknown("node1", {"kvrocks_pasword": "s3cret"}, {}, ("kvrocks_",))
    assert "s3cret" not in str(problem)
    assert "(not shown)" in str(problem)
