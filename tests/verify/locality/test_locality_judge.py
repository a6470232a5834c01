"""What the turns of some conversations say of the router, and what they do not."""

from __future__ import annotations

import itertools

import pytest

from kvstrata.verify.check import Json, UnableError, UnmetError
from kvstrata.verify.locality import judge
from kvstrata.verify.locality.conversation import LONGER, MANY, Conversation, Sizes, how_many
from kvstrata.verify.locality.replicas import MixedError, Reading, servers
from kvstrata.verify.synthetic import Writer


def turn(number: int, replica: str = "a", expected: str | None = "a", took: float = 0.1) -> judge.Turn:
    return judge.Turn("c", number, replica, expected, 400, 320 if replica == expected else 0, 0, took)


def turns(warm: int, cold: int) -> list[judge.Turn]:
    first = [turn(1, expected=None, took=0.8)]
    return first + [turn(2) for _ in range(warm)] + [turn(2, "b") for _ in range(cold)]


def test_follow_up_turns_on_the_warm_replica_pass_with_their_figures() -> None:
    data: dict[str, Json] = {}
    seen = judge.locality(turns(9, 0), 2, 0, data)
    assert seen == (
        "9 of 9 follow-up turns came to the replica that has the conversation: 80% of their tokens from its own cache, "
        "0% from LMCache; first token 0.10 s warm, 0.80 s cold (medians); 1 of 2 replicas took part"
    )
    assert (data["follow_up_turns"], data["warm_turns"], data["warm_local_share"]) == (9, 9, 0.8)
    assert (data["warm_first_token_s"], data["cold_first_token_s"]) == (0.1, 0.8)


@pytest.mark.parametrize(("warm", "cold", "passes"), [(9, 1, True), (18, 2, True), (8, 1, False), (0, 9, False)])
def test_nine_in_ten_must_be_warm(warm: int, cold: int, passes: bool) -> None:
    if passes:
        judge.locality(turns(warm, cold), 2, 0, {})
        return
    with pytest.raises(UnmetError, match=f"{warm} of {warm + cold} follow-up turns came"):
        judge.locality(turns(warm, cold), 2, 0, {})


def test_too_few_turns_prove_nothing_either_way() -> None:
    for found in (turns(judge.LEAST - 1, 0), turns(0, judge.LEAST - 1)):
        with pytest.raises(UnableError, match="only 5 follow-up turns were seen, 6 are needed; 3 could not be told"):
            judge.locality(found, 2, 3, {})


# -- who served ------------------------------------------------------------------------------------

NOTHING = Reading(0, 0, 0, 0)


def counted(requests: int, tokens: int) -> Reading:
    return Reading(requests, tokens, 0, 0)


def test_requests_of_the_same_time_are_told_apart_by_their_tokens() -> None:
    deltas = {"a": counted(2, 300 + 320), "b": counted(1, 305), "c": NOTHING}
    assert servers(deltas, {1: 300, 2: 305, 3: 320}) == {1: "a", 2: "b", 3: "a"}


def test_requests_of_the_same_time_are_waited_for() -> None:
    assert servers({"a": counted(1, 300), "b": NOTHING}, {1: 300, 2: 305}) is None


@pytest.mark.parametrize(
    "deltas",
    [
        {"a": counted(1, 300), "b": counted(1, 300)},
        {"a": counted(2, 900), "b": NOTHING},
        {"a": counted(2, 600), "b": counted(1, 70)},
        {"a": counted(-4, -900), "b": counted(7, 1500)},
    ],
)
def test_requests_of_the_same_time_that_cannot_be_told_apart_are_mixed(deltas: dict[str, Reading]) -> None:
    with pytest.raises(MixedError):
        servers(deltas, {1: 300, 2: 300})


# -- what is said ----------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", range(2, 60))
def test_the_number_of_conversations_is_no_multiple_of_the_number_of_replicas(replicas: int) -> None:
    count = how_many(replicas)
    assert count % replicas != 0
    assert count > replicas or count == MANY


def test_no_two_sums_of_two_first_turns_are_alike() -> None:
    sums = [one + other for one, other in itertools.combinations(LONGER, 2)]
    assert len(set(sums)) == len(sums)
    assert len(LONGER) > MANY


def test_each_turn_begins_with_all_of_the_turn_before_and_no_two_conversations_begin_alike() -> None:
    writer, sizes = Writer("seed", 2.0), Sizes(320, 96)
    one, other = Conversation(1), Conversation(2)
    said = [list(one.speak(writer, sizes)) for _ in range(3)]
    assert said[1][: len(said[0])] == said[0]
    assert said[2][: len(said[1])] == said[1]
    assert [message["role"] for message in said[2]] == ["user", "assistant", "user", "assistant", "user"]
    start = other.speak(writer, sizes)[0]["content"]
    assert start.split()[:3] != said[0][0]["content"].split()[:3]
    assert len(start.split()) == pytest.approx(184, abs=4)


def test_the_same_seed_says_the_same_and_another_one_something_else() -> None:
    def first(seed: str) -> str:
        return Conversation(1).speak(Writer(seed, 2.0), Sizes(320, 96))[0]["content"]

    assert first("one") == first("one")
    assert first("one").split()[2:] != first("two").split()[2:]


@pytest.mark.parametrize(
    ("chunk", "context", "expected"),
    [
        (256, 8192, (272, 48)),
        (1024, 8192, (1040, 48)),
        (4096, 2048, (1024, 48)),
        (16, 256, (128, 32)),
        (0, 8192, (272, 48)),
    ],
)
def test_the_first_turn_is_longer_than_a_chunk_and_all_fit_into_the_context(
    chunk: int, context: int, expected: tuple[int, int]
) -> None:
    sizes = Sizes.of(chunk, context)
    assert (sizes.first, sizes.more) == expected
    assert sizes.first + 3 * sizes.more < context
