"""What the workloads send: exact lengths, declared shares, and nothing shared that should not be."""

from __future__ import annotations

import json
import random
from itertools import islice, pairwise
from pathlib import Path
from statistics import mean

import pytest

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving import workloads
from kvstrata.bench.serving.model import Conversation, Turn, Workload
from kvstrata.bench.serving.workloads.vocabulary import Vocabulary, of_model
from kvstrata.plan.workload import Workload as Planned
from kvstrata.plan.workload import conversations

VOCABULARY = Vocabulary(tuple(range(1000, 9000)))


def prefix(one: Conversation, other: Conversation) -> int:
    """How many tokens the first prompts of two conversations have in common."""
    tokens = zip(one.turns[0].prompt, other.turns[0].prompt, strict=False)
    return next((index for index, (a, b) in enumerate(tokens) if a != b), len(one.turns[0].prompt))


def sizes(workload: Workload) -> list[tuple[int, int]]:
    return [(turn.prompt_tokens, turn.output_tokens) for held in workload.conversations for turn in held.turns]


@pytest.mark.parametrize("name", workloads.NAMES)
def test_the_same_seed_gives_the_same_workload_and_another_seed_another(name: str) -> None:
    def tokens(seed: int) -> list[list[int]]:
        workload = workloads.build(name, VOCABULARY, seed, scale=0.05)
        return [list(turn.prompt) for held in workload.conversations for turn in held.turns]  # type: ignore[arg-type]

    assert tokens(1) == tokens(1)
    assert tokens(1) != tokens(2)


@pytest.mark.parametrize("name", workloads.NAMES)
def test_every_prompt_has_as_many_tokens_as_it_says(name: str) -> None:
    workload = workloads.build(name, VOCABULARY, 1, scale=0.05)
    for held in workload.conversations:
        for turn in held.turns:
            assert len(list(turn.prompt)) == len(turn.prompt) == turn.prompt_tokens


@pytest.mark.parametrize("name", workloads.NAMES)
def test_names_of_conversations_are_unique(name: str) -> None:
    names = [held.name for held in workloads.build(name, VOCABULARY, 1).conversations]
    assert len(set(names)) == len(names)


def test_poc_has_the_proof_of_concepts_parameters() -> None:
    workload = workloads.build("poc", VOCABULARY, 1)
    turns = [len(held.turns) for held in workload.conversations]
    first = [held.turns[0].prompt_tokens for held in workload.conversations]
    later = [turn.prompt_tokens for held in workload.conversations for turn in held.turns[1:]]
    answers = [turn.output_tokens for held in workload.conversations for turn in held.turns]
    assert (len(workload.conversations), workload.active) == (400, 50)
    # 2-28 messages, made even: 1 to 14 requests; 1 from 2 messages only, all others from two numbers each.
    assert (min(turns), max(turns)) == (1, 14)
    assert mean(turns) == pytest.approx((1 + 2 * sum(range(2, 15))) / 27, rel=0.08)
    assert min(first) >= 850
    assert max(first) <= 1350
    assert mean(first) == pytest.approx(1100, rel=0.02)
    assert (min(later), max(later)) == (50, 150)
    assert (min(answers), max(answers)) == (100, 230)
    assert mean(answers) == pytest.approx(165, rel=0.02)
    assert "note" not in workload.parameters


def test_poc_is_what_the_planner_simulates_with_the_same_seed() -> None:
    workload = workloads.build("poc", VOCABULARY, 7)
    for held, planned in zip(workload.conversations, islice(conversations(Planned(), 7), 400), strict=True):
        length = 0
        for turn, lengths in zip(held.turns, planned, strict=True):
            length += turn.prompt_tokens
            assert (length, turn.output_tokens) == (lengths.prompt, lengths.output)
            length += turn.output_tokens


def test_poc_conversations_share_nothing() -> None:
    held = workloads.build("poc", VOCABULARY, 1).conversations
    assert max(prefix(one, other) for one, other in pairwise(held)) < 3


def test_poc_thinks_as_long_as_it_is_told_to_in_the_mean_and_never_before_the_first_turn() -> None:
    workload = workloads.build("poc", VOCABULARY, 1, given={"think_s": "5"})
    assert {held.turns[0].think_s for held in workload.conversations} == {0.0}
    assert mean(turn.think_s for held in workload.conversations for turn in held.turns[1:]) == pytest.approx(5, rel=0.1)


def test_longdoc_comes_back_to_a_document_after_all_others() -> None:
    given = {"documents": "6", "distance": "3", "questions": "2", "document": "200", "question": "10-20"}
    held = workloads.build("longdoc", VOCABULARY, 1, given=given).conversations
    order = [entry.name for entry in held]
    assert order[:6] == [f"longdoc-{document}-{question}" for question in range(2) for document in range(3)]
    assert prefix(held[0], held[3]) == 200
    assert prefix(held[0], held[1]) < 3


def test_shared_users_have_their_system_prompt_in_common_and_nothing_else() -> None:
    workload = workloads.build("shared", VOCABULARY, 1, given={"prompts": "2", "users": "10", "system": "300"})
    lengths = {prefix(one, other) for one in workload.conversations for other in workload.conversations if one != other}
    assert 300 in lengths
    assert all(length < 3 or 300 <= length < 303 for length in lengths)


def test_a_scaled_workload_keeps_its_lengths_and_says_what_it_is_not() -> None:
    whole, small = workloads.build("poc", VOCABULARY, 1), workloads.build("poc", VOCABULARY, 1, scale=0.02)
    assert (len(small.conversations), small.active) == (8, 1)
    assert sizes(small) == sizes(whole)[: small.requests]
    note = small.parameters["note"]
    assert note == "not the workload as it is defined: conversations 8 instead of 400, active 1 instead of 50"


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("pco", {}, "given 'pco'; allowed: poc, longdoc, shared, trace"),
        ("poc", {"size": "1"}, "nothing named 'size'; allowed: conversations, active, messages, prefix"),
        ("poc", {"active": "0"}, "active: given '0'; allowed: a whole number from 1"),
        ("poc", {"prefix": "9-3"}, "prefix: given '9-3'; allowed: a whole number from 1, or two as LOW-HIGH"),
        ("poc", {"think_s": "-1"}, "think_s: given '-1'; allowed: a number from 0"),
        ("poc", {"name": "x"}, "nothing named 'name'"),
        ("trace", {"speed": "0"}, "speed: given 0; allowed: a number above 0"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_is_allowed(name: str, given: dict[str, str], said: str) -> None:
    with pytest.raises(BenchError) as error:
        workloads.build(name, VOCABULARY, 1, given=given)
    assert said in str(error.value)


def test_a_scale_above_one_is_refused() -> None:
    with pytest.raises(BenchError, match="--scale: given 2; allowed: above 0, up to 1"):
        workloads.build("poc", VOCABULARY, 1, scale=2)


# The working set.


def single(name: str, tokens: list[int], answer: int = 1) -> Conversation:
    return Conversation(name, (Turn(tuple(tokens), len(tokens), answer),))


def test_the_working_set_of_one_request_is_its_prompt_and_answer() -> None:
    found = workloads.working_set_tokens(Workload("w", (single("a", list(range(100)), 20),), 1, 1))
    assert (found.live, found.total, found.prompt, found.found_at_best) == (120, 120, 100, 0)


def test_a_prefix_that_comes_back_stays_live_in_between() -> None:
    first, other = list(range(128)), list(range(1000, 1128))
    held = (single("a", first, 64), single("b", other, 64), single("c", first, 64))
    found = workloads.working_set_tokens(Workload("w", held, 1, 1))
    assert found.live == 128 + 192
    assert found.total == 128 + 64 + 192 + 64
    assert found.found_at_best == 128


def test_requests_that_run_together_do_not_find_each_other() -> None:
    first = list(range(128))
    found = workloads.working_set_tokens(Workload("w", (single("a", first), single("b", first)), 2, 1))
    assert found.found_at_best == 0


def test_the_best_hit_rate_of_poc_is_all_that_the_conversation_said_before() -> None:
    workload = workloads.build("poc", VOCABULARY, 1, scale=0.1)
    held_before = prompts = 0
    for held in workload.conversations:
        length = 0
        for turn in held.turns:
            held_before += length
            length += turn.prompt_tokens
            prompts += length
            length += turn.output_tokens
    found = workloads.working_set_tokens(workload)
    assert (found.found_at_best, found.prompt) == (held_before, prompts)
    assert found.best_hit_rate == held_before / prompts
    longest = sum(turn.prompt_tokens + turn.output_tokens for turn in max(workload.conversations, key=_length).turns)
    assert longest <= found.live < found.total


def _length(held: Conversation) -> int:
    return sum(turn.prompt_tokens + turn.output_tokens for turn in held.turns)


# Vocabularies.


def _tokenizer(folder: Path, vocab: object, **model: object) -> Path:
    added = [{"id": 0, "content": "Ġspecial"}]
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab, **model}, "added_tokens": added}))
    return folder


def _words(mark: str) -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [f"{mark}{a}{b}" for a in letters for b in letters]


def test_prompts_of_a_byte_level_bpe_are_words_with_their_space(tmp_path: Path) -> None:
    vocab = {"Ġspecial": 0, "Ġ12": 1, "a": 2} | {word: 10 + index for index, word in enumerate(_words("Ġ"))}
    found = of_model(_tokenizer(tmp_path, vocab, merges=["a b"]))
    assert set(found.ids) == set(range(10, 10 + 676))
    assert found.to_text([10, 11]) == " aa ab"


def test_prompts_of_a_sentencepiece_model_are_words_too(tmp_path: Path) -> None:
    found = of_model(_tokenizer(tmp_path, [[word, -1.0] for word in _words("▁")]))
    assert found.to_text([1]) == " ab"


def test_prompts_of_a_tokenizer_of_single_bytes_are_its_printable_characters(tmp_path: Path) -> None:
    found = of_model(_tokenizer(tmp_path, {"Ġ": 0, "a": 1, "b": 2}, merges=[]))
    assert (found.ids, found.to_text([2, 1])) == ((1, 2), "ba")


def test_a_text_of_the_labs_model_is_the_tokens_it_was_made_of(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    from kvstrata.models import lab_llama

    lab_llama.write_tokenizer(tmp_path, lab_llama.Shape())
    vocabulary = of_model(tmp_path)
    ids = vocabulary.draw(random.Random(1), 500)  # noqa: S311
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tuple(tokenizer.encode(vocabulary.to_text(ids), add_special_tokens=False).ids) == ids


def test_a_text_of_words_is_the_tokens_it_was_made_of_whatever_stands_beside_them(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=1200, initial_alphabet=alphabet, show_progress=False)
    rng = random.Random(1)  # noqa: S311
    letters = "abcdefghijklmnop"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 6))) for _ in range(400)]
    trained.train_from_iterator([" ".join(rng.choices(words, k=2000)) for _ in range(20)], trainer)
    trained.save(str(tmp_path / "tokenizer.json"))
    vocabulary = of_model(tmp_path)
    ids = vocabulary.draw(rng, 2000)
    assert tuple(trained.encode(vocabulary.to_text(ids)).ids) == ids


def test_without_a_tokenizer_the_vocabularys_size_is_enough_for_token_ids(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 32000}))
    found = of_model(tmp_path)
    assert (found.ids[0], found.ids[-1]) == (256, 31743)
    with pytest.raises(BenchError, match=r"need a tokenizer\.json"):
        found.to_text([300])


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"allowed: a tokenizer\.json, or a vocab_size"):
        of_model(tmp_path)
