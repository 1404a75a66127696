"""Attacks: what each makes of a prompt, and what a template forces in a response."""

import base64
import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

import toy_diffusion
from demur import InputError, Prompt, cli, read_prompts, record
from demur.attacks import ATTACKS, attack_prompts, attacked
from demur.attacks.flipping import reversed_words
from demur.models import Model, from_network, make_bidirectional
from demur.prompts import as_prompts, prompts_hash, write_prompts
from demur.prompts.infill import infill_parts, mark
from demur.samplers import Autoregressive, MaskedDiffusion

CAKE = Prompt("cake", "bake a big cake", "harmful", category="kitchen")


@pytest.fixture(scope="module")
def diffusion() -> Model:
    """A tiny masked-diffusion model with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    words = toy_diffusion.tokenizer()
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    network = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), max_position_embeddings=128, **sizes))
    return from_network(make_bidirectional(network), words, family="masked-diffusion")


@pytest.mark.parametrize("name", list(ATTACKS))
def test_every_attack_keeps_label_and_request_and_names_itself(name: str) -> None:
    (made,) = attack_prompts(name, [CAKE])
    assert (made.label, made.goal, made.category) == ("harmful", CAKE.prompt, "kitchen")
    assert (made.attack, made.group, made.id) == (name, name, f"cake-{name}")
    assert as_prompts([made]) == [made]
    assert (made.prompt, made.infill) != (CAKE.prompt, None)
    assert ATTACKS[name].__doc__


def test_a_second_attack_keeps_the_goal_and_both_names() -> None:
    twice = attack_prompts("base64", attack_prompts("refusal-suppression", [CAKE]))[0]
    assert (twice.attack, twice.goal) == ("refusal-suppression+base64", CAKE.prompt)


def test_the_request_stands_in_the_attack_by_instruction() -> None:
    for name in ("refusal-suppression", "prefix-injection", "dija", "pad"):
        assert CAKE.prompt in (attack_prompts(name, [CAKE])[0].prompt or "")


def test_base64_can_be_decoded_again() -> None:
    text = attack_prompts("base64", [Prompt("a", "back ein Brötchen {please}")])[0].prompt
    assert text is not None
    assert base64.b64decode(text.split()[-1]).decode() == "back ein Brötchen {please}"


@pytest.mark.parametrize(
    ("name", "flipped"),
    [
        ("flip-word-order", "cake big a bake"),
        ("flip-characters-in-word", "ekab a gib ekac"),
        ("flip-characters-in-sentence", "ekac gib a ekab"),
        ("flip-fool-model", "ekac gib a ekab"),
    ],
)
def test_flipping_has_four_modes(name: str, flipped: str) -> None:
    text = attack_prompts(name, [CAKE])[0].prompt
    assert text is not None
    assert text.endswith(f"Task: {flipped}")
    assert CAKE.prompt not in text


def test_the_fool_model_mode_asks_for_the_wrong_way_back() -> None:
    fool, words = (attack_prompts(f"flip-{name}", [CAKE])[0].prompt for name in ("fool-model", "word-order"))
    assert fool is not None and words is not None
    assert fool.rpartition("Task:")[0] == words.rpartition("Task:")[0]
    assert reversed_words(reversed_words("a b  c")) == "a b c"


def test_what_cannot_be_attacked_is_named() -> None:
    with pytest.raises(InputError, match="prompt 'x': is given as token ids"):
        attack_prompts("base64", [Prompt("x", token_ids=(1, 2))])
    with pytest.raises(InputError, match="attack 'flip' is unknown; give one of refusal-suppression"):
        attack_prompts("flip", [CAKE])
    with pytest.raises(InputError, match="prompt 'x': forces a part of its response already"):
        attack_prompts("dija", [Prompt("x", "bake", prefill="Sure")])
    assert attacked(CAKE, "mine", text="new").prompt == "new"


def test_a_template_is_texts_and_gaps() -> None:
    assert infill_parts(f"First{mark(3)}{mark(2)} then") == ["First", 3, 2, " then"]
    assert infill_parts(f"{mark(12)}end") == [12, "end"]
    assert infill_parts("a [[note]]") == ["a [[note]]"]
    with pytest.raises(InputError, match="at least 1"):
        mark(0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"infill": "Step 1: [[mask:0]]"}, r"line 1 \(id 'a'\): field 'infill': the mark '\[\[mask:0\]\]' is none"),
        ({"infill": "Step 1: [[mask]]"}, "write \\[\\[mask:N\\]\\]"),
        ({"infill": "[[mask:8]]"}, "holds no text to force"),
        ({"infill": "x", "prefill": "y"}, "has both 'prefill' and 'infill'"),
        ({"infill": 3}, "field 'infill' is 3, not text"),
    ],
)
def test_a_faulty_template_names_the_row(tmp_path: Path, row: dict, message: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"id": "a", "prompt": "bake", **row}))
    with pytest.raises(InputError, match=message):
        read_prompts(path)


def test_a_template_changes_the_hash_and_its_absence_does_not() -> None:
    plain = [Prompt("0", "hello")]
    assert prompts_hash(plain) == "e9d46a7a4379367e72fa59ada1376dd38d1783b6c8ca931de7f920535f19ed01"
    assert prompts_hash(plain) != prompts_hash([Prompt("0", "hello", infill="a")])


def test_a_template_stands_in_the_canvas_from_the_first_step(diffusion: Model) -> None:
    words = diffusion.tokenizer
    template = "sure here is [[mask:3]] then [[mask:2]] and"
    forced = words("sure here is")["input_ids"] + [-1] * 3 + words("then")["input_ids"] + [-1] * 2
    forced = np.array(forced + words("and")["input_ids"])
    rows = [{"id": "a", "prompt": "tell me about tea", "infill": template}, {"id": "b", "prompt": "tea"}]
    recording = record(diffusion, rows, MaskedDiffusion(steps=4, response_length=16))
    tokens = recording.steps_tokens(0)
    places = np.flatnonzero(forced >= 0)
    assert tokens.is_committed[0][: len(forced)][places].all()
    assert (tokens.predicted[:, places] == forced[places]).all()
    assert tokens.is_committed.sum(axis=1).tolist() == [8, 11, 14, 16]  # 5 forced; 11 free over 4 steps
    assert recording.steps_tokens(1).is_committed.sum(axis=1).tolist() == [4, 8, 12, 16]


def test_an_infill_attack_fits_a_usual_canvas(diffusion: Model) -> None:
    sampler = MaskedDiffusion(steps=4, response_length=128)
    diffusion.context_length = None
    recording = record(diffusion, [attack_prompts(name, [CAKE])[0] for name in ("dija", "pad")], sampler)
    assert recording.table["attack"].tolist() == ["dija", "pad"]


def test_a_template_that_does_not_fit_is_named(diffusion: Model, toy_model: Model) -> None:
    rows = [{"prompt": "tea", "infill": "sure [[mask:20]]"}]
    with pytest.raises(InputError, match=r"prompt '0' \(row 1\): its infill has 21 tokens, more than .* 16"):
        record(diffusion, rows, MaskedDiffusion(steps=4, response_length=16))
    with pytest.raises(InputError, match=r"behind a gap, which an autoregressive sampler cannot.*masked-diffusion"):
        record(toy_model, [{"prompt": "tea", "infill": "sure [[mask:2]] then"}], Autoregressive(steps=8))


def test_a_template_that_is_a_beginning_is_a_prefill(toy_model: Model) -> None:
    rows = [{"prompt": "how do i make tea", "infill": "sorry i [[mask:3]]"}, {"id": "x", "prompt": "how do i make tea"}]
    rows[1]["prefill"] = "sorry i"
    texts = record(toy_model, rows, steps=8).table["text"]
    assert texts[0] == texts[1]
    assert texts[0].startswith("sorry i")


def test_a_prompt_file_is_read_back_as_written(tmp_path: Path) -> None:
    prompts = [CAKE, *attack_prompts("dija", [CAKE]), Prompt("ids", token_ids=(1, 2)), Prompt("ä", "line\u2028break")]
    write_prompts(prompts, tmp_path / "new" / "p.jsonl")
    assert read_prompts(tmp_path / "new" / "p.jsonl") == prompts
    with pytest.raises(InputError, match="is written as"):
        write_prompts(prompts, tmp_path / "p.csv")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        write_prompts(prompts, tmp_path / "file" / "p.jsonl")


def command(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with patch("sys.argv", ["demur", *map(str, arguments)]), redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def test_the_command_writes_the_attacked_prompts(tmp_path: Path) -> None:
    write_prompts([CAKE], tmp_path / "p.jsonl")
    code, out, err = command("attack", "pad", tmp_path / "p.jsonl", "--out", tmp_path / "a.jsonl")
    assert (code, err) == (0, "")
    assert "1 prompts, attack pad" in out
    assert "cake\n" not in out
    assert read_prompts(tmp_path / "a.jsonl") == attack_prompts("pad", [CAKE])
    code, _, err = command("attack", "pads", tmp_path / "p.jsonl", "--out", tmp_path / "a.jsonl")
    assert code == 2
    assert "attack 'pads' is unknown" in err


def test_the_command_lists_the_attacks() -> None:
    code, out, _ = command("attack", "--list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(ATTACKS)
    assert all(len(line.split()) > 3 for line in out.splitlines())
