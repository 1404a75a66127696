"""Forced responses: a model reads a text that another one wrote, step by step."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import demur
import toy
import toy_diffusion
from demur import InputError, Recording, record
from demur.models import Model, from_network, make_bidirectional
from demur.provenance import Provenance
from demur.samplers import MaskedDiffusion, Sampler, Step, UniformDiffusion

STEPS = 14
PROMPTS = ["tell me about tea", "how do i make bombs", "write about maps and kites please"]
TEXTS = ["sure here is tea", "sorry i cannot help with tea because it would hurt someone", "tea"]
IDS = torch.tensor([[5, 6, 7]])


@pytest.fixture(scope="module")
def diffusion() -> Model:
    words = toy_diffusion.tokenizer()
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    network = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), max_position_embeddings=128, **sizes))
    network.get_output_embeddings().weight.data[words.mask_token_id] = 0  # never the likeliest token
    model = from_network(make_bidirectional(network), words, family="masked-diffusion")
    model.eos_token_ids = [words.eos_token_id]
    return model


def tokens_of(model: Model, text: str) -> list[int]:
    return list(model.tokenizer(text, add_special_tokens=False)["input_ids"])


def forced(model: Model, sampler: Sampler, tokens: list[int]) -> list[Step]:
    return list(sampler.forced_steps(model, IDS, responses=torch.tensor([tokens])))


def test_a_model_that_reads_its_own_text_gives_its_own_recording(toy_model: Model) -> None:
    free = record(toy_model, PROMPTS, steps=STEPS)
    read = record(toy_model, PROMPTS, steps=STEPS, responses=free.table["text"])
    assert read.table["text"].tolist() == free.table["text"].tolist()
    assert read.table["tokens"].tolist() == free.table["tokens"].tolist()
    np.testing.assert_allclose(read.phi, free.phi, atol=1e-5)


def test_phi_of_a_given_text_is_that_of_one_pass_over_it(toy_model: Model) -> None:
    read = record(toy_model, PROMPTS, steps=STEPS, responses=TEXTS)
    assert read.table["text"].tolist() == TEXTS
    assert read.table["refused"].tolist() == [False, True, False]
    for row, (prompt, text) in enumerate(zip(PROMPTS, TEXTS, strict=True)):
        start, response = toy_model.encode(prompt), [*tokens_of(toy_model, text), toy_model.eos_token_ids[0]]
        with torch.no_grad():
            ids = torch.tensor([start + response])
            states = toy_model.network(ids, output_hidden_states=True).hidden_states[-1][0, len(start) :]
        means = (states.cumsum(dim=0) / torch.arange(1, len(response) + 1)[:, None]).numpy()
        idle = means[-1:].repeat(STEPS - len(response), axis=0)
        np.testing.assert_allclose(read.phi[row, :, 0], np.concatenate([means, idle]), atol=1e-5)


def test_a_long_text_is_cut_and_an_empty_one_ends_at_once(toy_model: Model) -> None:
    recording = record(toy_model, ["tea", "rain"], steps=3, responses=["sure here is tea and so on", ""])
    assert recording.table["text"].tolist() == ["sure here is", ""]
    assert recording.table["tokens"].tolist() == [3, 1]


def test_the_batch_never_changes_what_is_read(toy_model: Model, diffusion: Model) -> None:
    for model in (toy_model, diffusion):
        sampler = model.default_sampler(steps=8) if model is toy_model else MaskedDiffusion(8, response_length=16)
        alone = record(model, PROMPTS, sampler, responses=TEXTS, batch_size=1)
        np.testing.assert_allclose(record(model, PROMPTS, sampler, responses=TEXTS).phi, alone.phi, atol=1e-5)


SAMPLERS: list[dict[str, Any]] = [
    {},
    {"block_length": 4},
    {"order": "left_to_right"},
    {"schedule": "dream"},
    {"schedule": "dynamic", "threshold": 0.03},
    {"remasking": "random", "seed": 3},
    {"pooling": "released"},
]


@pytest.mark.parametrize("arguments", SAMPLERS, ids=str)
def test_a_diffusion_model_that_reads_its_own_tokens_takes_its_own_steps(diffusion: Model, arguments: dict) -> None:
    sampler = MaskedDiffusion(steps=8, response_length=16, **arguments)
    free = list(sampler.steps(diffusion, IDS))
    assert free[-1].is_committed.all()
    read = forced(diffusion, sampler, free[-1].committed[0].tolist())
    for one, other in zip(free, read, strict=True):
        assert torch.equal(one.committed, other.committed)
        assert torch.equal(one.predicted, other.predicted)
        assert torch.equal(one.phi, other.phi)


@pytest.mark.parametrize("arguments", SAMPLERS, ids=str)
def test_another_text_fills_the_canvas_completely_and_nothing_else_does(diffusion: Model, arguments: dict) -> None:
    sampler = MaskedDiffusion(steps=8, response_length=16, **arguments)
    tokens = torch.arange(10, 26)
    steps = forced(diffusion, sampler, tokens.tolist())
    assert len(steps) == 8
    assert steps[-1].is_committed.all()
    for step in steps:
        known = step.is_committed[0]
        assert torch.equal(step.committed[0, known], tokens[known])
        assert torch.equal(step.predicted[0, known], tokens[known])
        assert (step.committed[0, ~known] == diffusion.mask_token_id).all()
        assert step.phi.isfinite().all()


def test_the_pace_is_that_of_the_schedule(diffusion: Model) -> None:
    counts = [int(step.is_committed.sum()) for step in forced(diffusion, MaskedDiffusion(8, 20), [9] * 20)]
    assert counts == [3, 6, 9, 12, 14, 16, 18, 20]


def test_a_pass_over_a_given_text_sees_only_what_was_committed_before(diffusion: Model) -> None:
    tokens = list(range(10, 18))
    steps = forced(diffusion, MaskedDiffusion(4, 8, order="left_to_right"), tokens)
    for index, step in enumerate(steps):
        seen = tokens[: 2 * index] + [diffusion.mask_token_id] * (8 - 2 * index)
        with torch.no_grad():
            canvas = torch.cat([IDS, torch.tensor([seen])], dim=1)
            states = diffusion.network(canvas, output_hidden_states=True).hidden_states[-1][0, 3:]
        expected = states[: 2 * index + 2].mean(dim=0)
        torch.testing.assert_close(step.phi[0, 0], expected, atol=1e-5, rtol=0)


def test_a_recording_of_a_given_text_is_padded_with_end_of_sequence(diffusion: Model) -> None:
    sampler = MaskedDiffusion(steps=4, response_length=8)
    recording = record(diffusion, PROMPTS, sampler, responses=TEXTS)
    expected = [" ".join(text.split()[:8]) for text in TEXTS]
    assert recording.table["text"].tolist() == expected
    last = recording.steps_tokens(0).predicted[-1].tolist()
    assert last == tokens_of(diffusion, TEXTS[0]) + [diffusion.eos_token_ids[0]] * 4


def test_provenance_tells_a_given_text_from_a_free_one(toy_model: Model, tmp_path: Path) -> None:
    free = record(toy_model, PROMPTS, steps=4)
    read = record(toy_model, PROMPTS, steps=4, responses=TEXTS, out=tmp_path)
    other = record(toy_model, PROMPTS, steps=4, responses=[*TEXTS[:2], "rain"])
    assert not free.provenance.responses
    keys = {one.provenance.key() for one in (free, read, other)}
    assert len(keys) == 3
    assert Recording(tmp_path).provenance == read.provenance == Provenance.from_dict(read.provenance.to_dict())
    with pytest.raises(InputError, match=r"holds another recording.*differs in responses"):
        record(toy_model, PROMPTS, steps=4, out=tmp_path)
    with pytest.raises(InputError, match="differs in responses"):
        record(toy_model, PROMPTS, steps=4, responses=["a", "b", "c"], out=tmp_path)


def test_a_free_recording_keeps_the_key_it_had() -> None:
    made = Provenance("m", "f", {"name": "Autoregressive", "steps": 2}, (2,), prompts="p", count=1)
    assert "responses" not in made.to_dict()
    assert made.keys()[1] == "246453774cf101fc9371f0beaaee4803ce2b70df520bafad546e7b92e76f976b"


def test_anchors_of_free_generations_read_a_given_text(toy_model: Model) -> None:
    harmless, harmful = toy.rows("anchors_harmless")[::2], toy.rows("anchors_harmful")[::2]
    anchors = demur.Anchors.fit(record(toy_model, harmless, steps=STEPS), record(toy_model, harmful, steps=STEPS))
    prompts = ["how do i make bombs"] * 2
    texts = [toy.answer("bombs", refuse=refuse) for refuse in (False, True)]
    complies, refuses = anchors.signal(record(toy_model, prompts, steps=STEPS, responses=texts))
    assert complies[-1] > 0.5 > refuses[-1]
    with pytest.raises(demur.ProvenanceError, match="sampler steps 14 against 4"):
        anchors.signal(record(toy_model, prompts, steps=4, responses=texts))


@pytest.mark.parametrize(
    ("responses", "message"),
    [
        (["one"], "1 responses for 3 prompts; give one text a prompt"),
        ("one", "responses is one text; give a list"),
        (["a", None, "c"], r"prompt '1' \(row 2\): its response is None, not text"),
        (["a", "b", 3.5], r"prompt '2' \(row 3\): its response is 3.5, not text"),
    ],
)
def test_wrong_responses_are_refused_before_anything_is_generated(
    toy_model: Model, tmp_path: Path, responses: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        record(toy_model, PROMPTS, steps=4, responses=responses, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_what_cannot_be_forced_is_named(toy_model: Model, diffusion: Model) -> None:
    with pytest.raises(InputError, match="forces a part of the response and is given a whole one"):
        record(toy_model, [{"prompt": "tea", "prefill": "sure"}], steps=4, responses=["sure tea"])
    with pytest.raises(InputError, match="holds the model's mask token"):
        record(diffusion, ["tea"], MaskedDiffusion(4, 8), responses=["sure <mask>"])
    with pytest.raises(InputError, match="UniformDiffusion cannot force whole responses"):
        UniformDiffusion(4).forced_steps(toy_model, IDS, responses=torch.ones(1, 256, dtype=torch.int64))
    with pytest.raises(InputError, match=r"responses of shape \(1, 3\); expected \[1, 8\]"):
        forced(diffusion, MaskedDiffusion(4, 8), [1, 2, 3])
    toy_model.eos_token_ids = []
    with pytest.raises(InputError, match=r"has 1 of 4 tokens and .* has no end-of-sequence token"):
        record(toy_model, ["tea"], steps=4, responses=["tea"])
