"""The uniform-diffusion sampler against the `generate` of a tiny DiffusionGemma."""

from pathlib import Path

import pytest
import torch
from transformers import (
    DiffusionGemmaConfig,
    DiffusionGemmaForBlockDiffusion,
    DiffusionGemmaTextConfig,
    Gemma4VisionConfig,
)

from demur.errors import InputError
from demur.models import Model, load
from demur.samplers import Step, UniformDiffusion
from demur.samplers.step import row_seed

CANVAS, VOCABULARY = 8, 64
PROMPT = [2, 5, 6, 7]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = DiffusionGemmaTextConfig(
        vocab_size=VOCABULARY,
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
    tokens = {"image_token_id": 60, "boi_token_id": 61, "eoi_token_id": 62}
    torch.manual_seed(0)
    config = DiffusionGemmaConfig(text_config=text, vision_config=vision, canvas_length=CANVAS, **tokens)
    network = DiffusionGemmaForBlockDiffusion(config)
    with torch.no_grad():  # random heads are too flat to ever accept a token
        network.model.decoder.embed_tokens.weight.mul_(40)
    network.generation_config.pad_token_id = 0
    network.generation_config.eos_token_id = [1]
    place = tmp_path_factory.mktemp("diffusion-gemma")
    network.save_pretrained(place)
    return place


@pytest.fixture
def model(folder: Path) -> Model:
    return load(folder, device="cpu")


def run(model: Model, prompts: list[list[int]], *, layers: tuple = ("last",), **arguments: int) -> list[Step]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(one)) + one for one in prompts])
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts])
    return list(UniformDiffusion(**arguments).steps(model, ids, mask, layers=layers))


def generated(model: Model, prompt: list[int], seed: int, **options: int) -> list[int]:
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
    prompts = [PROMPT, [2, 9], [2, 30, 31, 32, 33, 34]]
    together = run(model, prompts, steps=6, response_length=2 * CANVAS)
    for row, prompt in enumerate(prompts):
        alone = run(model, [prompt], steps=6, response_length=2 * CANVAS)
        for one, many in zip(alone, together, strict=True):
            assert torch.equal(one.predicted[0], many.predicted[row])
            assert torch.equal(one.phi[0], many.phi[row])


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


def test_a_prefill_is_refused(model: Model) -> None:
    sampler = UniformDiffusion(steps=2, response_length=CANVAS)
    with pytest.raises(InputError, match="cannot force"):
        list(sampler.steps(model, torch.tensor([PROMPT]), prefill=[[5]]))
