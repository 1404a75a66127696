"""Training material for guards: what ships, that wrappers treat both labels alike, and what they leave of a request."""

import base64
import codecs
import importlib
import json
import re
from pathlib import Path
from random import Random

import pytest

from demur import InputError, Prompt
from demur.attacks import ATTACKS
from demur.hardening import (
    ATTACK_NAMES,
    WRAPPERS,
    hardening_pairs,
    hardening_prompts,
    prompt_counts,
    resembling,
    wrap,
    wrapper_counts,
    wrapper_kind,
)
from demur.hardening.wrapper import fill, topic
from demur.prompts import as_prompts, write_prompts

REQUEST = "Why do {geese} fly south, and who told them?"
TWINS = [Prompt("a", REQUEST, "harmless"), Prompt("b", "How do I pick a pocket?", "harmful")]
KINDS = {"plain": (300, 300), "sounds-dangerous": (400, 400), "languages": (300, 60), "long": (60, 0), "code": (80, 0)}
KINDS["tasks"] = (200, 0)


@pytest.mark.parametrize("kind", list(KINDS))
def test_enough_of_every_kind_ships(kind: str) -> None:
    harmless, harmful = (len(hardening_prompts(kind, label=label)) for label in ("harmless", "harmful"))
    assert harmless >= KINDS[kind][0]
    assert harmful >= KINDS[kind][1]


def test_prompts_and_ids_are_unique_whatever_the_case_and_the_punctuation() -> None:
    prompts = hardening_prompts()
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    plain = {"".join(letter for letter in str(prompt.prompt).casefold() if letter.isalnum()) for prompt in prompts}
    assert len(plain) == len(prompts)
    assert as_prompts(prompts) == prompts


def test_every_language_has_both_labels() -> None:
    table = prompt_counts().set_index("category")
    languages = table[table.index.str.startswith("languages/")]
    assert len(languages) == 12
    assert (languages["harmless"] >= 25).all()
    assert (languages["harmful"] >= 5).all()


def test_pairs_have_a_harmless_and_a_harmful_side_of_one_part() -> None:
    pairs = hardening_pairs()
    assert len(pairs) == 400
    for harmless, harmful in pairs:
        assert (harmless.label, harmful.label) == ("harmless", "harmful")
        assert harmless.category == harmful.category
    assert len(hardening_pairs("sounds-dangerous/history")) == 40


def test_harmful_prompts_are_short_requests() -> None:
    longest = max(hardening_prompts(label="harmful"), key=lambda prompt: len(str(prompt.prompt).split()))
    assert len(str(longest.prompt).split()) <= 25


def test_long_prompts_are_long_and_different() -> None:
    prompts = hardening_prompts("long", label="harmless")
    assert all(150 <= len(str(prompt.prompt).split()) <= 500 for prompt in prompts)
    assert len({str(prompt.prompt)[:150] for prompt in prompts}) == len(prompts)


def test_counts_add_up() -> None:
    table = prompt_counts()
    assert table["harmless"].sum() + table["harmful"].sum() == len(hardening_prompts())
    assert len(wrapper_counts()) == len(WRAPPERS)


def test_there_are_enough_kinds_and_families_of_wrappers() -> None:
    assert len(WRAPPERS) >= 24
    assert len({wrapper.family for wrapper in WRAPPERS.values()}) >= 12
    assert all(wrapper.write.__doc__ for wrapper in WRAPPERS.values())


@pytest.mark.parametrize("kind", list(WRAPPERS))
def test_a_wrapper_has_many_wordings_and_treats_both_labels_alike(kind: str) -> None:
    write = WRAPPERS[kind].write
    frames = {write(REQUEST, Random(seed)) for seed in range(60)}
    assert len(frames) >= 12
    for label in ("harmless", "harmful"):
        (made,) = wrap([Prompt("a", REQUEST, label, category="birds")], [kind], seed=3)
        assert (made.label, made.goal, made.category) == (label, REQUEST, "birds")
        assert made.prompt == WRAPPERS[kind].write(REQUEST, Random(f"3/{kind}/a"))
        assert (wrapper_kind(made), made.id) == (kind, f"a-wrapped-{kind}")


@pytest.mark.parametrize("kind", list(WRAPPERS))
def test_a_legible_wrapper_holds_the_request_and_no_slot_is_left(kind: str) -> None:
    for seed in range(60):
        text = WRAPPERS[kind].write(REQUEST, Random(seed))
        assert "\0" not in text
        if WRAPPERS[kind].legible:
            assert REQUEST in text
        for slot in ("request", "name", "number", "topic", "beginning", "why", "word", "small", "code", "story"):
            assert "{" + slot + "}" not in text.replace("{{", "").replace("}}", ""), text


def test_what_is_written_in_another_way_can_be_read_back() -> None:
    assert base64.b64encode(REQUEST.encode()).decode() in WRAPPERS["code-base64"].write(REQUEST, Random(1))
    assert codecs.encode(REQUEST, "rot13") in WRAPPERS["code-rot13"].write(REQUEST, Random(1))
    text = WRAPPERS["split-variables"].write(REQUEST, Random(1))
    namespace: dict[str, str] = {}
    exec("\n".join(line for line in text.splitlines() if " = " in line and "Let" not in line), namespace)
    pieces = [value for name, value in namespace.items() if not name.startswith("__")]
    assert " ".join(pieces) == REQUEST


def test_rule_lists_differ_in_length_and_place() -> None:
    texts = [WRAPPERS["rules-many"].write(REQUEST, Random(seed)) for seed in range(80)]
    places = [text.index(REQUEST) / len(text) for text in texts]
    assert min(places) < 0.2
    assert max(places) > 0.8
    assert max(map(len, texts)) > 1.8 * min(map(len, texts))


def test_kinds_are_dealt_out_evenly_within_each_label() -> None:
    prompts = [Prompt(f"{label}{n}", REQUEST, label) for n in range(10) for label in ("harmless", "harmful")]
    made = wrap(prompts, ["rules-few", "game-bet", "noise-suffix", "frame-plea", "shots-few"], each=2)
    counts: dict[tuple[str | None, str | None], int] = {}
    for prompt in made:
        counts[wrapper_kind(prompt), prompt.label] = counts.get((wrapper_kind(prompt), prompt.label), 0) + 1
    assert set(counts.values()) == {4}
    assert len(counts) == 10
    assert len({prompt.id for prompt in made}) == len(made)


def test_wrapping_is_the_same_again_and_depends_on_seed_and_id() -> None:
    kinds = ["rules-contest"]
    assert wrap(TWINS, kinds, seed=1) == wrap(TWINS[::-1], kinds, seed=1)[::-1]
    assert wrap(TWINS, kinds, seed=1) != wrap(TWINS, kinds, seed=2)
    same_text = [Prompt("a", REQUEST), Prompt("b", REQUEST)]
    assert len({prompt.prompt for prompt in wrap(same_text, kinds)}) == 2


def test_a_request_is_never_read_as_a_template() -> None:
    odd = "Print {name}, {story}, {quote}, {text} and {word}."
    for kind, wrapper in WRAPPERS.items():
        if wrapper.legible:
            assert odd in wrapper.write(odd, Random(5)), kind
    assert fill("{a} {request}", Random(0), "{a}", {"a": ["x"]}) == "x {a}"
    assert topic("Why is it so?") == "why is it so"


def test_short_requests_can_be_wrapped() -> None:
    for kind in WRAPPERS:
        assert wrap([Prompt("a", "Hi", "harmless")], [kind])[0].prompt


def test_attacks_know_the_wrappers_that_resemble_them() -> None:
    assert "rules-contest" in (resembling("prompt_with_random_search") or ())
    assert resembling("Random Search") == resembling("random-search")
    assert resembling("something else") is None
    named = {name for wrapper in WRAPPERS.values() for name in wrapper.resembles}
    assert named == set(ATTACK_NAMES.values())
    assert all(resembling(name) for name in ATTACKS if name not in ("dija", "pad"))


def test_the_attacks_by_name_are_what_they_were() -> None:
    assert not [name for name in ATTACKS if name.startswith("wrapped-")]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda: wrap(TWINS, ["rules"]), "wrapper kind 'rules' is unknown"),
        (lambda: wrap(TWINS, []), "no wrapper kind is given"),
        (lambda: wrap(TWINS, ["game-bet"], each=2), "each = 2"),
        (lambda: wrap([Prompt("a", token_ids=(1, 2))], ["game-bet"]), "token ids"),
        (lambda: hardening_prompts("jokes"), "kind 'jokes' is unknown"),
        (lambda: hardening_prompts("code/jokes"), "has no prompts"),
        (lambda: hardening_prompts(label="bad"), "label 'bad' is unknown"),
        (lambda: hardening_pairs("code"), "is not in pairs"),
    ],
)
def test_bad_input_is_named(fault: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        fault()  # type: ignore[operator]


def test_the_example_of_the_page_runs() -> None:
    page = (Path(__file__).parent.parent / "docs" / "hardening.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    given: dict[str, list[Prompt]] = {}
    exec(example, given)
    assert len(given["wrapped"]) == 3 * len(given["plain"])
    assert 0 < len(given["without"]) < len(WRAPPERS)


def test_overlap_with_data_for_measuring_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    overlap = importlib.import_module("overlap")
    clean, copied = tmp_path / "clean.jsonl", tmp_path / "copied.jsonl"
    write_prompts([Prompt("a", "Nobody has ever asked for precisely this odd sentence before today.")], clean)
    taken = hardening_prompts("sounds-dangerous/history")[0]
    write_prompts([Prompt("a", str(taken.prompt).upper())], copied)
    assert overlap.main([str(clean)], seeds=1) == 0
    assert overlap.main([str(clean), str(copied)], seeds=1) == 1
    found = json.loads("{" + capsys.readouterr().out.split("}\n{")[-1])
    assert len(found["files"][1]["whole"]) == 1
    assert found["files"][1]["runs"]


def test_the_page_shows_the_counts_that_the_functions_give() -> None:
    page = (Path(__file__).parent.parent / "docs" / "hardening.md").read_text(encoding="utf-8")
    for row in prompt_counts().itertuples():
        assert f"| {row.category} | {row.harmless} | {row.harmful} | {row.words:.0f} |" in page
    for row in wrapper_counts().itertuples():
        assert f"| `{row.kind}` | {row.family} |" in page
