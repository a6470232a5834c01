"""Write policies: what each admits, in the order in which LMCache looks up and offers."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from kvstrata.l2.policy import AdmissionPolicy, TinyLfu, make_policy

NAMES = ("all", "second_use", "min_prefix", "tinylfu")


def cid(name: object) -> bytes:
    return hashlib.blake2b(str(name).encode(), digest_size=16).digest()


def cids(*names: object) -> list[bytes]:
    return [cid(name) for name in names]


def request(policy: AdmissionPolicy, chunks: Sequence[bytes], offered: int | None = None) -> list[bool]:
    """One request as LMCache shows it: all chunks looked up, then the last `offered` of them (all) offered."""
    policy.looked_up(chunks)
    return [policy.admit(one) for one in chunks[len(chunks) - (len(chunks) if offered is None else offered) :]]


def test_all_admits_everything() -> None:
    assert request(make_policy("all"), cids("a", "b")) == [True, True]


def test_second_use_refuses_a_first_offer_and_admits_the_next() -> None:
    policy = make_policy("second_use")
    assert request(policy, cids("a", "b")) == [False, False]
    assert request(policy, cids("a", "c")) == [True, False]


def test_second_use_counts_uses_that_l1_served() -> None:
    policy = make_policy("second_use", window=1024)
    request(policy, cids("hot"))
    # So many others that the first use is forgotten, unless the lookups in between are counted as well.
    for number in range(4096):
        policy.looked_up([cid(number), *cids("hot")])
    assert policy.admit(cid("hot"))


def test_second_use_forgets_what_was_used_once_long_ago() -> None:
    policy = make_policy("second_use", window=1024)
    request(policy, cids("cold"))
    for number in range(4096):
        request(policy, [cid(number)])
    assert request(policy, cids("cold")) == [False]


def test_second_use_admits_the_first_offer_when_two_requests_wait_for_the_same_chunk() -> None:
    policy = make_policy("second_use")
    policy.looked_up(cids("a"))
    policy.looked_up(cids("a"))
    assert policy.admit(cid("a"))


@pytest.mark.parametrize("name", ["second_use", "tinylfu"])
def test_an_offer_that_no_lookup_announced_is_a_use(name: str) -> None:
    policy = make_policy(name)
    assert not policy.admit(cid("a"))
    assert request(policy, cids("a")) == [True]


def test_min_prefix_writes_the_whole_of_a_long_prompt_and_nothing_of_a_short_one() -> None:
    policy = make_policy("min_prefix", chunks=3)
    assert request(policy, cids("a", "b", "c")) == [True, True, True]
    assert request(policy, cids("d", "e")) == [False, False]


def test_min_prefix_counts_the_chunks_before_a_lookup_that_begins_later() -> None:
    policy = make_policy("min_prefix", chunks=3)
    policy.looked_up(cids("c"), first=2)
    policy.looked_up(cids("b"), first=1)
    assert [policy.admit(cid("c")), policy.admit(cid("b"))] == [True, False]


def test_min_prefix_goes_by_the_longest_prompt_of_a_chunk() -> None:
    policy = make_policy("min_prefix", chunks=3)
    policy.looked_up(cids("a", "b", "c"))
    policy.looked_up(cids("a"))
    assert policy.admit(cid("a"))


def test_min_prefix_admits_and_counts_what_it_does_not_know() -> None:
    policy = make_policy("min_prefix", chunks=3, window=1024)
    policy.looked_up(cids("forgotten"))
    for number in range(1024):
        policy.looked_up([cid(number)])
    assert policy.admit(cid("never seen"))
    assert policy.admit(cid("forgotten"))
    assert not policy.admit(cid(1023))
    report = policy.report()
    assert (report["unknown"], report["remembered"]) == (2, 1024)


@pytest.mark.parametrize("min_uses", [1, 2, 3, 15])
def test_tinylfu_admits_from_the_given_number_of_uses(min_uses: int) -> None:
    policy = make_policy("tinylfu", min_uses=min_uses)
    admitted = [request(policy, cids("a")) for _ in range(min_uses + 1)]
    assert admitted == [[False]] * (min_uses - 1) + [[True], [True]]


def test_tinylfu_halves_its_counts_after_eight_times_its_capacity() -> None:
    policy = make_policy("tinylfu", min_uses=8, capacity=1024)
    for _ in range(9):
        policy.looked_up(cids("a"))
    assert policy.admit(cid("a"))
    for number in range(8 * 1024 - 9):
        policy.looked_up([cid(number)])
    assert policy.report()["halvings"] == 1
    # 9 uses: one at the doorkeeper, which is emptied, and 8 in the sketch, halved.
    assert not policy.admit(cid("a"))
    for _ in range(4):
        policy.looked_up(cids("a"))
    assert policy.admit(cid("a"))


def test_tinylfu_forgets_single_uses_when_it_halves() -> None:
    policy = make_policy("tinylfu", min_uses=2, capacity=1024)
    policy.looked_up(cids("a"))
    for number in range(8 * 1024 - 1):
        policy.looked_up([cid(number)])
    policy.looked_up(cids("a"))
    assert not policy.admit(cid("a"))
    policy.looked_up(cids("a"))
    assert policy.admit(cid("a"))


def test_tinylfu_prefers_what_is_used_more_often_than_the_victim() -> None:
    policy = TinyLfu()
    policy.looked_up(cids("often", "once"))
    policy.looked_up(cids("often"))
    assert policy.admit_against(cid("often"), cid("once"))
    assert not policy.admit_against(cid("once"), cid("often"))
    assert not policy.admit_against(cid("never"), cid("neither"))


@pytest.mark.parametrize("name", NAMES[1:])
def test_only_when_full_writes_everything_while_there_is_room(name: str) -> None:
    policy = make_policy(name, only_when_full=True)
    policy.full = False
    assert request(policy, cids("a", "b")) == [True, True]
    policy.full = True
    assert request(policy, cids("c", "d")) == [False, False]


def test_only_when_full_learns_while_there_is_room() -> None:
    policy = make_policy("second_use", only_when_full=True)
    policy.full = False
    request(policy, cids("a"))
    policy.full = True
    assert request(policy, cids("a", "b")) == [True, False]


def test_room_alone_lets_nothing_pass() -> None:
    policy = make_policy("second_use")
    policy.full = False
    assert request(policy, cids("a")) == [False]


@pytest.mark.parametrize("name", NAMES)
def test_the_report_counts_what_was_admitted_and_refused(name: str) -> None:
    policy = make_policy(name)
    admitted = request(policy, cids("a", "b")) + request(policy, cids("a", "c"))
    report = policy.report()
    assert report["policy"] == policy.name == name
    assert (report["admitted"], report["refused"]) == (admitted.count(True), admitted.count(False))


@pytest.mark.parametrize(
    ("name", "options", "bytes_at_most"),
    [
        ("second_use", {"window": 1 << 12}, 10 << 12),
        ("tinylfu", {"capacity": 1 << 12}, 24 << 12),
    ],
)
def test_memory_stays_within_what_the_documentation_says(
    name: str, options: dict[str, Any], bytes_at_most: int
) -> None:
    policy = make_policy(name, **options)
    before = policy.report()["memory_bytes"]
    for number in range(20000):
        request(policy, [cid(number)])
    after = policy.report()["memory_bytes"]
    assert isinstance(after, int)
    assert before == after <= bytes_at_most


def test_min_prefix_remembers_no_more_than_its_window() -> None:
    policy = make_policy("min_prefix", window=1024)
    policy.looked_up([cid(number) for number in range(5000)])
    assert policy.report()["remembered"] == 1024


@pytest.mark.parametrize("name", NAMES)
def test_threads_lose_no_count(name: str) -> None:
    policy = make_policy(name)

    def work(thread: int) -> None:
        for number in range(500):
            request(policy, cids(number, f"{thread}/{number}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = policy.report()
    assert isinstance(report["admitted"], int)
    assert isinstance(report["refused"], int)
    assert report["admitted"] + report["refused"] == 4 * 500 * 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lru", {}, "policy is 'lru'; allowed: all, second_use, min_prefix, tinylfu"),
        ("all", {"window": 5}, "policy 'all' has no option 'window'; allowed: none"),
        ("tinylfu", {"window": 5}, "policy 'tinylfu' has no option 'window'; allowed: min_uses, capacity"),
        ("second_use", {"window": 5}, "window is 5; allowed: an integer from 1024 to 67108864"),
        ("min_prefix", {"chunks": 0}, "chunks is 0; allowed: an integer from 1 to 65536"),
        ("tinylfu", {"min_uses": 16}, "min_uses is 16; allowed: an integer from 1 to 15"),
        ("tinylfu", {"min_uses": True}, "min_uses is True; allowed: an integer from 1 to 15"),
        ("tinylfu", {"capacity": "9999"}, "capacity is '9999'; allowed: an integer from 1024 to 67108864"),
    ],
)
def test_a_wrong_option_is_refused_by_name(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        make_policy(name, **options)
