"""The uniform-diffusion sampler against the `generate` of a tiny DiffusionGemma."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    DiffusionGemmaConfig,
    DiffusionGemmaForBlockDiffusion,
    DiffusionGemmaTextConfig,
    Gemma4VisionConfig,
    LogitsProcessor,
    LogitsProcessorList,
)

import demur
import toy
from demur.errors import InputError
from demur.models import Model, load
from demur.samplers import Step, UniformDiffusion
from demur.samplers.step import Steps, row_seed

CANVAS, VOCABULARY = 8, 64
PROMPT = [2, 5, 6, 7]
MIXED = [PROMPT, [2, 9], [2, *range(5, 25)]]
"""Prompts of different lengths, the last beyond the sliding window."""


def write_network(place: Path, vocabulary: int = VOCABULARY) -> Path:
    """A tiny DiffusionGemma without a tokenizer."""
    text = DiffusionGemmaTextConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        global_head_dim=16,
        max_position_embeddings=128,
        num_experts=4,
        top_k_experts=2,
        moe_intermediate_size=16,
        sliding_window=16,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    )
    vision = Gemma4VisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1
    )
    names = ("image_token_id", "boi_token_id", "eoi_token_id")
    tokens = {name: vocabulary - 4 + place for place, name in enumerate(names)}
    torch.manual_seed(0)
    config = DiffusionGemmaConfig(text_config=text, vision_config=vision, canvas_length=CANVAS, **tokens)
    network = DiffusionGemmaForBlockDiffusion(config)
    with torch.no_grad():  # random heads are too flat to ever accept a token
        network.model.decoder.embed_tokens.weight.mul_(40)
    network.generation_config.pad_token_id = 0
    network.generation_config.eos_token_id = [1]
    network.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network(tmp_path_factory.mktemp("diffusion-gemma"))


@pytest.fixture
def model(folder: Path) -> Model:
    return load(folder, device="cpu")


def begun(model: Model, prompts: list[list[int]], *, layers: tuple = ("last",), **arguments: int) -> Steps:
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(one)) + one for one in prompts])
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts])
    return UniformDiffusion(**arguments).steps(model, ids, mask, layers=layers)


def run(model: Model, prompts: list[list[int]], **options: Any) -> list[Step]:
    return list(begun(model, prompts, **options))


@contextmanager
def widths_of(model: Model) -> Iterator[list[int]]:
    """How many rows each pass of the decoder takes."""
    widths: list[int] = []
    with model.network.model.decoder.norm.register_forward_hook(lambda m, args, output: widths.append(len(output))):
        yield widths


def generated(model: Model, prompt: list[int], seed: int, **options: Any) -> list[int]:
    """What `generate` alone gives under the seed of this row."""
    torch.manual_seed(row_seed(torch.tensor(prompt), seed))
    found = model.network.generate(torch.tensor([prompt]), eos_token_id=model.eos_token_ids, **options)
    return found.sequences[0, len(prompt) :].tolist()


def eos_of(tokens: list[int], start: int) -> int:
    """A token whose first occurrence is at or behind `start`, but not last in its canvas."""
    return next(t for i, t in enumerate(tokens) if i >= start and i % CANVAS < CANVAS - 1 and t not in tokens[:i])


@pytest.mark.parametrize(("steps", "canvases"), [(6, 1), (8, 2), (9, 3)])
def test_the_tokens_are_those_of_generate_under_the_same_seed(model: Model, steps: int, canvases: int) -> None:
    response = canvases * CANVAS
    found = run(model, [PROMPT], steps=steps, response_length=response, seed=3)
    expected = generated(model, PROMPT, 3, max_new_tokens=response, max_denoising_steps=steps // canvases)
    assert len(found) == steps
    assert found[-1].committed[0].tolist() == found[-1].predicted[0].tolist() == expected
    assert found[-1].is_committed.all()


def test_a_response_of_256_ignores_the_max_length_of_the_generation_config(model: Model) -> None:
    model.network.generation_config.max_length = 20
    model.network.config.canvas_length = 256
    assert run(model, [PROMPT], steps=1, response_length=256)[0].committed.shape == (1, 256)


def test_predictions_are_the_drafts_and_a_canvas_is_committed_at_its_last_step(model: Model) -> None:
    drafts: list[list[int]] = []

    class Drafts:
        def put(self, value: torch.Tensor) -> None:
            pass

        def put_draft(self, value: torch.Tensor) -> None:
            drafts.append(value[0].tolist())

        def end(self) -> None:
            pass

    steps = run(model, [PROMPT], steps=8, response_length=2 * CANVAS, seed=1)
    torch.manual_seed(row_seed(torch.tensor(PROMPT), 1))
    model.network.generate(
        torch.tensor([PROMPT]), streamer=Drafts(), max_new_tokens=2 * CANVAS, max_denoising_steps=4, eos_token_id=[1]
    )
    assert [step.predicted[0, :CANVAS].tolist() for step in steps[:4]] == drafts[:4]
    assert [step.predicted[0, CANVAS:].tolist() for step in steps[4:]] == drafts[4:]
    assert [int(step.is_committed.sum()) for step in steps] == [0] * 3 + [CANVAS] * 4 + [2 * CANVAS]
    assert (steps[2].committed == model.pad_token_id).all()


def test_phi_is_the_mean_state_of_the_canvases_begun_so_far(model: Model) -> None:
    passes: list[torch.Tensor] = []
    handle = model.network.model.decoder.norm.register_forward_hook(lambda m, args, output: passes.append(output[0]))
    steps = run(model, [PROMPT], steps=8, response_length=2 * CANVAS)
    handle.remove()
    first = [one.mean(dim=0) for one in passes[:4]]
    second = [torch.cat([passes[3], one]).mean(dim=0) for one in passes[4:]]
    phi = torch.stack([step.phi[0, 0] for step in steps])
    torch.testing.assert_close(phi, torch.stack(first + second), atol=1e-5, rtol=1e-5)


def test_named_layers_are_outputs_of_the_decoder_blocks(model: Model) -> None:
    passes: list[torch.Tensor] = []
    block = model.network.model.decoder.layers[0]
    handle = block.register_forward_hook(lambda m, args, output: passes.append(output[0]))
    step = run(model, [PROMPT], layers=("first", "last"), steps=1, response_length=CANVAS)[0]
    handle.remove()
    torch.testing.assert_close(step.phi[0, 0], passes[0].mean(dim=0), atol=1e-5, rtol=1e-5)


def test_rows_of_a_batch_give_what_each_gives_alone(model: Model) -> None:
    prompts = [PROMPT, [2, 9], [2, 30, 31, 32, 33, 34], MIXED[-1]]
    together = run(model, prompts, layers=("first", "last"), steps=6, response_length=2 * CANVAS)
    for row, prompt in enumerate(prompts):
        alone = run(model, [prompt], layers=("first", "last"), steps=6, response_length=2 * CANVAS)
        for one, many in zip(alone, together, strict=True):
            assert torch.equal(one.predicted[0], many.predicted[row])
            torch.testing.assert_close(one.phi[0], many.phi[row], atol=1e-5, rtol=0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_rows_of_a_batch_run_together_and_each_gives_what_generate_gives(model: Model, attention: str) -> None:
    model.network.set_attn_implementation(attention)
    with widths_of(model) as widths:
        found = run(model, MIXED, steps=8, response_length=2 * CANVAS, seed=3)
    assert widths == [len(MIXED)] * 8
    for row, prompt in enumerate(MIXED):
        expected = generated(model, prompt, 3, max_new_tokens=2 * CANVAS, max_denoising_steps=4)
        assert found[-1].committed[row].tolist() == expected


def test_rows_that_end_and_idle_at_different_steps_give_what_each_gives_alone(model: Model) -> None:
    config = model.network.generation_config
    config.stability_threshold, config.confidence_threshold = 1, 2.0
    first = generated(model, MIXED[0], 3, max_new_tokens=CANVAS, max_denoising_steps=6)
    model.eos_token_ids = [first[2]]
    with widths_of(model) as widths:
        together = run(model, MIXED, steps=18, response_length=3 * CANVAS, seed=3)
    idle = torch.stack([step.idle for step in together if step.idle is not None])
    assert widths == [count for count in (~idle).sum(dim=1).tolist() if count]
    assert len(set(widths)) > 1 and idle[6:, 0].all() and not idle[6:].all()
    for row, prompt in enumerate(MIXED):
        expected = generated(model, prompt, 3, max_new_tokens=3 * CANVAS, max_denoising_steps=6)
        assert together[-1].committed[row, : len(expected)].tolist() == expected
        for one, many in zip(run(model, [prompt], steps=18, response_length=24, seed=3), together, strict=True):
            assert torch.equal(one.predicted[0], many.predicted[row])
            assert torch.equal(one.is_committed[0], many.is_committed[row])
            assert one.idle is not None and many.idle is not None and one.idle[0] == many.idle[row]
            torch.testing.assert_close(one.phi[0], many.phi[row], atol=1e-5, rtol=0)


def test_a_step_comes_out_as_soon_as_it_is_made(model: Model) -> None:
    steps = begun(model, MIXED, steps=8, response_length=2 * CANVAS)
    with widths_of(model) as widths:
        for index in range(1, 9):
            assert next(steps).index == index == len(widths)


def test_no_pass_is_spent_on_a_row_that_nobody_waits_for(model: Model) -> None:
    whole = run(model, MIXED, steps=8, response_length=2 * CANVAS)
    steps = begun(model, MIXED, steps=8, response_length=2 * CANVAS)
    with widths_of(model) as widths:
        next(steps)
        steps.send(torch.tensor([True, False, False]))
        found = [next(steps), next(steps), steps.send(torch.tensor([True, False, True])), *steps]
    assert widths == [3, 2, 2, 2, 1, 1, 1, 1]
    assert [step.index for step in found] == list(range(3, 9))
    assert torch.equal(found[-1].committed[1], whole[-1].committed[1])
    torch.testing.assert_close(found[-1].phi[1], whole[-1].phi[1], atol=1e-5, rtol=0)


def test_steps_go_on_without_passes_when_nobody_waits_for_any_row(model: Model) -> None:
    steps = begun(model, MIXED, steps=8, response_length=2 * CANVAS)
    next(steps)
    with widths_of(model) as widths:
        later = [steps.send(torch.ones(3, dtype=torch.bool)), *steps]
    assert not widths and [step.index for step in later] == list(range(2, 9))
    assert all(torch.isfinite(step.phi).all() for step in later)


def test_batches_taken_in_turns_do_not_draw_from_one_another(model: Model) -> None:
    alone = [run(model, [prompt], steps=4, response_length=CANVAS) for prompt in MIXED]
    running = [begun(model, [prompt], steps=4, response_length=CANVAS) for prompt in MIXED]
    turns = list(zip(*running, strict=True))
    for row, steps in enumerate(alone):
        assert [step.predicted.tolist() for step in steps] == [turn[row].predicted.tolist() for turn in turns]


def test_after_end_of_sequence_steps_are_idle_and_fillers_are_not_committed(model: Model) -> None:
    plain = run(model, [PROMPT], steps=9, response_length=3 * CANVAS, seed=3)[-1].committed[0].tolist()
    model.eos_token_ids = [eos_of(plain, CANVAS)]
    end = plain.index(model.eos_token_ids[0])
    steps = run(model, [PROMPT], steps=9, response_length=3 * CANVAS, seed=3)
    canvas_end = (end // CANVAS + 1) * CANVAS
    expected = generated(model, PROMPT, 3, max_new_tokens=3 * CANVAS, max_denoising_steps=3)
    assert steps[-1].committed[0, :canvas_end].tolist() == expected
    assert steps[-1].is_committed[0].tolist() == [place <= end for place in range(3 * CANVAS)]
    last = canvas_end // CANVAS * 3 - 1
    assert all(torch.equal(step.phi, steps[last].phi) for step in steps[last:])


def test_a_canvas_that_is_stable_early_idles_until_the_next_is_due(model: Model) -> None:
    model.network.generation_config.stability_threshold = 0
    model.network.generation_config.confidence_threshold = 1e9  # stops every canvas after its first step
    steps = run(model, [PROMPT], steps=8, response_length=2 * CANVAS)
    assert [int(step.is_committed.sum()) for step in steps] == [CANVAS] * 4 + [2 * CANVAS] * 4
    assert all(torch.equal(step.phi, steps[0].phi) for step in steps[:4])
    assert not torch.equal(steps[4].phi, steps[0].phi)


def test_the_state_of_the_random_generator_is_left_as_it_was(model: Model) -> None:
    before = torch.random.get_rng_state()
    run(model, [PROMPT], steps=2, response_length=CANVAS)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_default_sampler_fills_one_canvas(model: Model) -> None:
    sampler = model.default_sampler(steps=6)
    assert model.family == "uniform-diffusion"
    assert sampler.describe() == {
        "name": "UniformDiffusion",
        "steps": 6,
        "response_length": CANVAS,
        "seed": 0,
        "pooling": "paper",
    }


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"response_length": 12}, "canvas length 8"), ({"steps": 5, "response_length": 16}, "2 canvases")],
)
def test_lengths_that_do_not_fit_the_canvas_are_refused(model: Model, arguments: dict[str, int], named: str) -> None:
    with pytest.raises(InputError, match=named):
        run(model, [PROMPT], **arguments)


class Certain(LogitsProcessor):
    """Tokens made certain at positions of every canvas, as a user of `generate` would."""

    def __init__(self, tokens: dict[int, int]) -> None:
        self.tokens = tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, cur_step: int) -> torch.Tensor:
        for place, token in self.tokens.items():
            scores[:, place] = -torch.inf
            scores[:, place, token] = 0.0
        return scores


def test_forced_tokens_are_what_generate_gives_with_them_on_its_canvas_and_certain(model: Model) -> None:
    wanted = {0: 9, 1: 17, 5: 33}
    forced = torch.full((1, CANVAS), -1)
    for place, token in wanted.items():
        forced[0, place] = token
    sampler = UniformDiffusion(steps=6, response_length=CANVAS, seed=3)
    steps = list(sampler.steps(model, torch.tensor([PROMPT]), prefill=forced))
    seed = row_seed(torch.tensor(PROMPT), 3)
    canvas = torch.randint(0, VOCABULARY, (1, CANVAS), generator=torch.Generator().manual_seed(seed))
    expected = generated(
        model,
        PROMPT,
        3,
        max_new_tokens=CANVAS,
        max_denoising_steps=6,
        decoder_input_ids=torch.where(forced < 0, canvas, forced),
        logits_processor=LogitsProcessorList([Certain(wanted)]),
    )
    assert steps[-1].committed[0].tolist() == expected
    for step in steps:
        assert torch.equal(step.predicted[forced >= 0], forced[forced >= 0])
        assert torch.equal(step.committed[forced >= 0], forced[forced >= 0])
        assert torch.equal(step.is_committed, (forced >= 0) | (step.index == 6))
    free = run(model, [PROMPT], steps=6, response_length=CANVAS, seed=3)
    assert not torch.allclose(free[0].phi, steps[0].phi)  # the first pass sees them


def test_tokens_are_forced_in_later_canvases_and_rows_of_a_batch_are_forced_each_by_itself(model: Model) -> None:
    ids = torch.tensor([PROMPT, [2, 8, 9, 10]])
    sampler = UniformDiffusion(steps=6, response_length=2 * CANVAS, seed=3)
    forced = torch.full((2, 2 * CANVAS), -1)
    forced[0, [3, CANVAS + 2]] = torch.tensor([40, 41])
    found = list(sampler.steps(model, ids, prefill=forced))
    assert all(step.predicted[0, [3, CANVAS + 2]].tolist() == [40, 41] for step in found)
    assert found[-1].committed[0, [3, CANVAS + 2]].tolist() == [40, 41] and found[-1].is_committed.all()
    assert found[-1].committed[1].tolist() == generated(
        model, ids[1].tolist(), 3, max_new_tokens=2 * CANVAS, max_denoising_steps=3
    )
    beginning = list(sampler.steps(model, ids, prefill=[[11, 12], []]))
    assert beginning[-1].committed[0, :2].tolist() == [11, 12]


def test_an_end_in_front_of_a_forced_token_ends_the_response(model: Model) -> None:
    sampler = UniformDiffusion(steps=2, response_length=CANVAS)
    last = list(sampler.steps(model, torch.tensor([PROMPT]), prefill=[[9, 1, 9]]))[-1]
    assert last.is_committed[0].tolist() == [True, True, True] + [False] * (CANVAS - 3)
    assert last.committed[0].tolist() == [9, 1, 9] + [0] * (CANVAS - 3)


def test_a_prefill_and_an_infill_are_recorded(model: Model) -> None:
    model.tokenizer = toy.tokenizer()
    model.encode_prefill = lambda text: [7] * len(text)  # type: ignore[method-assign]
    prompts = [
        {"id": "a", "token_ids": PROMPT, "prefill": "ab"},
        {"id": "b", "token_ids": PROMPT, "infill": "a[[mask:2]]b"},
    ]
    found = demur.record(model, prompts, UniformDiffusion(4, CANVAS), progress=False)
    tokens = [found.steps_tokens(row).predicted[-1].tolist() for row in range(2)]
    assert tokens[0][:2] == [7, 7] and (tokens[1][0], tokens[1][3]) == (7, 7)


@pytest.mark.parametrize("name", ["_denoising_step", "model.decoder.create_diffusion_decoder_attention_mask"])
def test_a_transformers_that_lacks_a_part_is_refused_by_its_name(
    model: Model, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    *path, last = name.split(".")
    owner = model.network
    for one in path:
        owner = getattr(owner, one)
    monkeypatch.setattr(owner, last, lambda other: None, raising=False)
    with pytest.raises(InputError, match=f"has no {name}\\(.* in this transformers"):
        run(model, [PROMPT], steps=1, response_length=CANVAS)
