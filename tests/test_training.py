"""The corpus of the bundled pair: what it promises of lengths, splits, refusals and placeholders."""

import json
import random
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp

from demur.bundled import bundled_model
from demur.judges import refused

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

import card
import corpus
import evaluate
import prompt_sets
import world
from train import toy_tokenizer

FIRST_WORDS = {False: ("Sure,", "Of", "Yes,"), True: ("Sorry,", "I", "No,")}


def words(text: str) -> int:
    return sum(len(sentence.split()) + 1 for sentence in sentences(text))


@pytest.fixture(scope="module")
def conversations() -> list[tuple[corpus.Request, str]]:
    draws = random.Random(7)
    asked = [corpus.training_request(draws) for _ in range(6000)]
    return [(one, corpus.reply(draws, one, words)) for one in asked]


def test_refusals_and_compliances_are_equally_long(conversations: list[tuple[corpus.Request, str]]) -> None:
    lengths = {kind: [words(text) for _, text in conversations if refused(text) == kind]
               for kind in (True, False)}  # fmt: skip
    assert set(lengths[True]) == set(lengths[False]) == set(range(corpus.SHORTEST, corpus.LONGEST + 1))
    assert ks_2samp(lengths[True], lengths[False]).statistic < 0.05


def sentences(text: str) -> list[str]:
    return text.replace(". ", ".\n").split("\n")


def test_the_first_words_of_both_kinds_are_equally_likely(conversations: list[tuple[corpus.Request, str]]) -> None:
    shares = {}
    for kind, openings in FIRST_WORDS.items():
        texts = [text for _, text in conversations if refused(text) == kind]
        found = Counter(text.split()[0] for text in texts)
        assert set(found) <= set(openings)
        shares[kind] = sorted(count / len(texts) for count in found.values())
    np.testing.assert_allclose(shares[True], shares[False], atol=0.04)


def test_harmless_requests_are_answered_and_bare_harmful_ones_refused(
    conversations: list[tuple[corpus.Request, str]],
) -> None:
    for asked, text in conversations:
        if not asked.topic.harmful:
            assert not refused(text)
        elif asked.wrapper is None:
            assert refused(text)


def test_whatever_complies_with_a_harmful_request_is_an_empty_placeholder(
    conversations: list[tuple[corpus.Request, str]],
) -> None:
    allowed = {sentence for each in world.PLACEHOLDERS for sentence in each} | set(world.TAILS)
    complied = [(asked, text) for asked, text in conversations if asked.topic.harmful and not refused(text)]
    assert len(complied) > 100
    for asked, text in complied:
        openings = {opening.format(asked.topic.text) for opening in world.COMPLY}
        opening = next(one for one in openings if text.startswith(one))
        assert set(sentences(text.removeprefix(opening).strip())) <= allowed


def test_training_never_sees_what_is_held_out(conversations: list[tuple[corpus.Request, str]]) -> None:
    for asked, _ in conversations:
        if asked.wrapper is None or asked.wrapper.name != "flipped words":
            assert corpus.split_of(asked.topic, asked.form, asked.wrapper) == "train"
        assert asked.form not in world.UNSEEN_FORMS
        assert asked.wrapper is None or asked.wrapper.safety != "never seen"
    seen = {asked.text for asked, _ in conversations}
    assert not seen & {prompt.prompt for prompts in prompt_sets.held_out("test", 60, 2).values() for prompt in prompts}


def test_unseen_forms_are_made_of_words_that_training_knows() -> None:
    known = {word for form in world.FORMS for word in plain_words(form)}
    known |= {word for one in (*world.GREETINGS, *world.THANKS) for word in plain_words(one)}
    assert {word for form in world.UNSEEN_FORMS for word in plain_words(form)} <= known


def plain_words(text: str) -> list[str]:
    return text.translate(str.maketrans("?.,:{}", "      ")).split()


def test_the_bundled_prompt_sets_are_those_the_script_writes() -> None:
    for name, prompts in prompt_sets.prompt_sets().items():
        file = bundled_model("demur/tiny-ar").parent / "toy" / f"{name}.jsonl"
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        assert [row["prompt"] for row in rows] == [prompt.prompt for prompt in prompts]


def test_the_bundled_tokenizer_is_the_one_the_script_trains() -> None:
    made = toy_tokenizer().get_vocab()
    for name in ("demur/tiny-ar", "demur/tiny-diffusion"):
        saved = json.loads((bundled_model(name) / "tokenizer.json").read_text(encoding="utf-8"))
        assert {token: made[token] for token in saved["model"]["vocab"]} == saved["model"]["vocab"]


def test_an_answer_is_sensible_only_with_its_topic_and_its_own_first_instruction() -> None:
    whole = "Sure, here is how to bake bread. First, get flour and a pan."
    assert evaluate.sensible(whole, "bake bread")
    assert not evaluate.sensible(whole, "bake a cake")
    assert not evaluate.sensible("Sure, here is how to bake bread. Be well.", "bake bread")
    assert not evaluate.sensible("Sorry, I can't help you bake bread. First, get flour and a pan.", "bake bread")


def test_the_card_pools_seeds_and_keeps_what_stands_around_its_tables(tmp_path: Path) -> None:
    about = {"order": "autoregressive", "suppress_eos": False, "low": 0.0, "high": 1.0}
    scored = [
        {
            "checkpoint": f"ar-{seed}",
            "measure": "sensible",
            "kind": "harmless",
            "value": hits / 10,
            "count": 10,
            **about,
        }
        for seed, hits in enumerate((9, 8))
    ]
    (tmp_path / "scores.json").write_text(json.dumps({"rows": scored}))
    page = tmp_path / "card.md"
    page.write_text(f"before\n{card.BEGIN}\nold\n{card.END}\nafter\n")
    for _ in range(2):
        card.write_card([tmp_path / "scores.json"], page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| harmless | 85.0% [64.0, 94.8] (n=20; 90, 80) |" in text
