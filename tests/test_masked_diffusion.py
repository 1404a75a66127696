"""The masked-diffusion sampler against the official samplers' fixtures and against its own definitions."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from demur.errors import InputError
from demur.models import Model, from_network, load
from demur.samplers import MaskedDiffusion, Step

FIXTURES = Path(__file__).parent / "fixtures"
LLADA, DREAM = FIXTURES / "llada" / "llada_mha", FIXTURES / "dream" / "dream_gqa"
REMASKING = {"entropy": "entropy", "maskgit_plus": "low_confidence", "topk_margin": "margin"}
MIXED_LENGTHS = (3, 11, 5, 8, 14, 4, 9, 6)


def cases(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    return dict(json.loads((folder / f"{name}.json").read_text()))


@cache
def tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / f"{name}.safetensors")


@pytest.fixture(scope="module")
def llada() -> Model:
    return load(LLADA, device="cpu")


@pytest.fixture(scope="module")
def dream() -> Model:
    return load(DREAM, device="cpu")


@pytest.fixture(scope="module", params=["llada", "dream"])
def model(request: pytest.FixtureRequest) -> Model:
    return request.getfixturevalue(request.param)


def run(
    model: Model, prompts: list[list[int]], *, layers: tuple = ("last",), prefill: Any = None, **arguments: Any
) -> list[Step]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[7] * (longest - len(one)) + one for one in prompts])
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts])
    return list(MaskedDiffusion(**arguments).steps(model, ids, mask, layers=layers, prefill=prefill))


def mixed_prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(0, 500, (length,), generator=generator).tolist() for length in MIXED_LENGTHS]


def require_trajectory(steps: list[Step], prompt: list[int], folder: Path, file: str, case: str) -> None:
    """Every canvas and every prediction is the reference's, as far as the reference goes."""
    found = tensors(folder, file)
    x, predicted = found[f"{case}/x"], found[f"{case}/predicted"]
    for index, expected in enumerate(predicted):
        assert steps[index].predicted[0].tolist() == expected.tolist()
        assert steps[index].committed[0].tolist() == x[index + 1, len(prompt) :].tolist()
    assert torch.equal(steps[-1].is_committed, steps[-1].committed != 500)


def require_phi(steps: list[Step], folder: Path, file: str, case: str, pooling: str) -> None:
    found = tensors(folder, file)
    if pooling == "paper":
        expected = found[f"{case}/phi_paper"].clone()
        everything = found.get(f"{case}/phi_ref_cond", found[f"{case}/phi_ref"])
        open_steps = expected.isnan().any(dim=1)
        expected[open_steps] = everything[open_steps]
    else:
        expected = found.get(f"{case}/phi_ref_cond", found[f"{case}/phi_ref"])
    phi = torch.stack([step.phi[0, 0] for step in steps[: len(expected)]])
    torch.testing.assert_close(phi, expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("pooling", ["paper", "released"])
@pytest.mark.parametrize("case", cases(LLADA, "generate"))
def test_llada_canvases_predictions_and_phi_are_those_of_the_official_sampler(
    llada: Model, case: str, pooling: str
) -> None:
    settings = cases(LLADA, "generate")[case]
    steps = run(
        llada,
        [settings["prompt_ids"]],
        steps=settings["steps"],
        response_length=settings["gen_length"],
        block_length=settings["block_length"],
        cfg_scale=settings["cfg_scale"],
        pooling=pooling,
    )
    assert steps[-1].committed[0].tolist() == settings["tokens"]
    assert int((~steps[-1].is_committed).sum()) == settings["positions_left_masked"]
    require_trajectory(steps, settings["prompt_ids"], LLADA, "generate", case)
    require_phi(steps, LLADA, "generate", case, pooling)


@pytest.mark.parametrize("pooling", ["paper", "released"])
@pytest.mark.parametrize("case", cases(LLADA, "threshold"))
def test_the_dynamic_schedule_is_the_reference_and_then_idle(llada: Model, case: str, pooling: str) -> None:
    settings = cases(LLADA, "threshold")[case]
    passes = settings["n_forward"]
    steps = run(
        llada,
        [settings["prompt_ids"]],
        steps=passes + 3,
        response_length=settings["gen_length"],
        block_length=settings["block_length"],
        schedule="dynamic",
        threshold=settings["threshold"],
        pooling=pooling,
    )
    assert len(steps) == passes + 3
    assert steps[-1].committed[0].tolist() == settings["tokens"]
    require_trajectory(steps, settings["prompt_ids"], LLADA, "threshold", case)
    require_phi(steps, LLADA, "threshold", case, pooling)
    assert all(torch.equal(step.phi, steps[passes - 1].phi) for step in steps[passes:])


def test_a_dynamic_schedule_that_runs_out_of_steps_commits_the_rest_in_the_last(llada: Model) -> None:
    arguments = {"response_length": 32, "block_length": 8, "schedule": "dynamic", "threshold": 0.9}
    long = run(llada, [[297, 18, 46]], steps=32, **arguments)
    short = run(llada, [[297, 18, 46]], steps=4, **arguments)
    assert short[2].committed.tolist() == long[2].committed.tolist()
    assert not short[2].is_committed.all()
    assert short[3].is_committed.all()
    assert short[3].committed.tolist() == short[3].predicted.tolist()


@pytest.mark.parametrize("pooling", ["paper", "released"])
@pytest.mark.parametrize("case", cases(DREAM, "generate"))
def test_dream_canvases_predictions_and_phi_are_those_of_the_official_sampler(
    dream: Model, case: str, pooling: str
) -> None:
    settings = cases(DREAM, "generate")[case]
    steps = run(
        dream,
        [settings["prompt_ids"]],
        steps=settings["steps"],
        response_length=settings["max_new_tokens"],
        remasking=REMASKING[settings["alg"]],
        schedule="dream",
        pooling=pooling,
    )
    assert steps[-1].committed[0].tolist() == settings["tokens"]
    require_trajectory(steps, settings["prompt_ids"], DREAM, "generate", case)
    require_phi(steps, DREAM, "generate", case, pooling)


def test_phi_before_anything_is_committed_is_the_mean_over_the_whole_response(dream: Model) -> None:
    settings = cases(DREAM, "generate")["ent_s24_g16_idle"]
    arguments = {"steps": 24, "response_length": 16, "remasking": "entropy", "schedule": "dream"}
    paper = run(dream, [settings["prompt_ids"]], pooling="paper", **arguments)
    released = run(dream, [settings["prompt_ids"]], pooling="released", **arguments)
    assert settings["steps_with_nothing_unmasked"] == list(range(9))
    assert all(torch.equal(paper[index].phi, released[index].phi) for index in range(9))
    assert not torch.allclose(paper[9].phi, released[9].phi)


@pytest.mark.parametrize(
    "arguments",
    [
        {"block_length": 8},
        {"cfg_scale": 0.5},
        {"remasking": "entropy", "schedule": "dream"},
        {"remasking": "margin"},
        {"schedule": "dynamic", "threshold": 0.3},
        {"remasking": "random"},
        {"temperature": 0.8, "seed": 5},
        {"temperature": 0.8, "schedule": "dream"},
    ],
)
def test_eight_prompts_of_mixed_length_give_what_each_gives_alone(model: Model, arguments: dict[str, Any]) -> None:
    arguments = {"steps": 4, "response_length": 16, **arguments}
    together = run(model, mixed_prompts(), layers=("middle", "last"), **arguments)
    for row, prompt in enumerate(mixed_prompts()):
        alone = run(model, [prompt], layers=("middle", "last"), **arguments)
        for one, many in zip(alone, together, strict=True):
            assert many.committed[row].tolist() == one.committed[0].tolist()
            assert many.predicted[row].tolist() == one.predicted[0].tolist()
            torch.testing.assert_close(many.phi[row], one.phi[0], atol=5e-5, rtol=0)


@pytest.mark.parametrize("arguments", [{"temperature": 1.0}, {"remasking": "random"}])
def test_another_seed_gives_another_trajectory_and_the_same_seed_the_same(
    llada: Model, arguments: dict[str, Any]
) -> None:
    arguments = {"steps": 8, "response_length": 16, **arguments}
    first, again, other = (
        [step.committed.tolist() for step in run(llada, [[5, 6, 7]], seed=seed, **arguments)] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_left_to_right_commits_the_leftmost_masks(model: Model) -> None:
    steps = run(model, [[5, 6, 7]], steps=4, response_length=8, order="left_to_right")
    for index, step in enumerate(steps, start=1):
        assert step.is_committed[0].tolist() == [True] * (2 * index) + [False] * (8 - 2 * index)


def test_left_to_right_one_token_a_step_is_block_length_one(llada: Model) -> None:
    settings = cases(LLADA, "generate")["s16_g16_b1_ar"]
    steps = run(llada, [settings["prompt_ids"]], steps=16, response_length=16, order="left_to_right")
    assert steps[-1].committed[0].tolist() == settings["tokens"]
    require_trajectory(steps, settings["prompt_ids"], LLADA, "generate", "s16_g16_b1_ar")


def test_suppressed_end_of_sequence_tokens_are_never_predicted(llada: Model) -> None:
    settings = cases(LLADA, "generate")["s8_g16_full_a"]
    plain = run(llada, [settings["prompt_ids"]], steps=8, response_length=16)
    favourite = int(plain[0].predicted[0].mode().values)
    model = from_network(llada.network, family="masked-diffusion", mask_token_id=500, eos_token_ids=[favourite])
    steps = run(model, [settings["prompt_ids"]], steps=8, response_length=16, suppress_eos=True)
    assert (plain[0].predicted == favourite).any()
    assert not any((step.predicted == favourite).any() for step in steps)
    assert all(step.phi.isfinite().all() for step in steps)


@pytest.mark.parametrize("schedule", ["static", "dynamic", "dream"])
def test_forced_tokens_stand_from_the_start_and_only_the_rest_is_filled(model: Model, schedule: str) -> None:
    forced = torch.full((2, 16), -1)
    forced[0, [0, 3, 15]] = torch.tensor([11, 12, 13])
    forced[1, 4:10] = 99
    steps = run(model, [[5, 6, 7], [8, 9]], prefill=forced, steps=8, response_length=16, schedule=schedule)
    for step in steps:
        assert torch.equal(step.committed[forced >= 0], forced[forced >= 0])
        assert torch.equal(step.predicted[forced >= 0], forced[forced >= 0])
        assert step.is_committed[forced >= 0].all()
    assert steps[-1].is_committed.all()
    if schedule == "static":  # 13 and 10 free positions over 8 steps, the remainder first
        grown = torch.stack([step.is_committed.sum(dim=1) for step in steps]).diff(dim=0)
        assert grown.T.tolist() == [[2, 2, 2, 2, 1, 1, 1], [2, 1, 1, 1, 1, 1, 1]]


def test_infill_predicts_as_the_network_does_on_the_same_canvas(llada: Model) -> None:
    prompt, forced = [5, 6, 7], [21, -1, 23, -1, -1, 26]
    step = run(llada, [prompt], prefill=torch.tensor([forced]), steps=1, response_length=6)[0]
    canvas = torch.tensor([prompt + [500 if token < 0 else token for token in forced]])
    with torch.no_grad():
        logits = llada.network(input_ids=canvas).logits[0, 3:]
    free = torch.tensor(forced) < 0
    assert step.committed[0, free].tolist() == logits.argmax(dim=-1)[free].tolist()


def test_named_layers_are_those_of_output_hidden_states(model: Model) -> None:
    prompt = [5, 6, 7, 8]
    step = run(model, [prompt], layers=("first", "middle", "last", 0), steps=4, response_length=8, pooling="released")[
        0
    ]
    canvas = torch.tensor([prompt + [500] * 8])
    with torch.no_grad():
        states = model.network(input_ids=canvas, output_hidden_states=True).hidden_states
    expected = torch.stack([states[index][0, 4:].mean(dim=0) for index in (1, 1, 3, 0)])
    torch.testing.assert_close(step.phi[0], expected, atol=5e-6, rtol=0)


def test_a_network_with_its_own_attention_and_head_gives_the_same_steps(llada: Model) -> None:
    class Own(torch.nn.Module):
        """What remote code looks like: other names, whole-sequence logits, no decoder to be had."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.ModuleDict({"ln_f": llada.network.model.norm, "blocks": llada.network.model.layers})
            self.config = llada.network.config

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor]:
            return (llada.network(input_ids=input_ids, attention_mask=attention_mask).logits,)

    own = from_network(Own(), family="masked-diffusion", mask_token_id=500, final_norm="inner.ln_f")
    arguments = {"steps": 4, "response_length": 8, "cfg_scale": 0.5, "layers": ("first", "last")}
    for one, other in zip(
        run(own, mixed_prompts(), **arguments), run(llada, mixed_prompts(), **arguments), strict=True
    ):
        assert one.committed.tolist() == other.committed.tolist()
        torch.testing.assert_close(one.phi, other.phi, atol=1e-5, rtol=0)


def test_logits_are_computed_at_masked_positions_only(llada: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    head = llada.network.lm_head
    handle = head.register_forward_hook(lambda module, args, output: asked.append(output.shape[0]))
    try:
        run(llada, [[5, 6, 7]], steps=4, response_length=8)
    finally:
        handle.remove()
    assert asked == [8, 6, 4, 2]


def test_small_pieces_of_logits_give_the_same_steps(llada: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"steps": 4, "response_length": 16, "temperature": 0.7}
    whole = run(llada, mixed_prompts(), **arguments)
    monkeypatch.setattr("demur.samplers.head.LOGITS_AT_ONCE", 5 * 512)
    pieces = run(llada, mixed_prompts(), **arguments)
    assert [step.committed.tolist() for step in whole] == [step.committed.tolist() for step in pieces]


def test_finished_rows_and_unchanged_canvases_are_not_run_again(dream: Model) -> None:
    rows: list[int] = []
    handle = dream.decoder.register_forward_hook(lambda module, args, output: rows.append(len(output[0])))
    try:
        run(dream, [[5, 6, 7]], steps=24, response_length=16, remasking="entropy", schedule="dream")
        assert len(rows) == 15  # 9 steps commit nothing and the first of them looks
        rows.clear()
        run(dream, mixed_prompts(), steps=17, response_length=16, schedule="dynamic", threshold=0.2)
        assert rows[0] == 8 > rows[-1]
    finally:
        handle.remove()


def test_arguments_rebuild_the_sampler(dream: Model) -> None:
    sampler = dream.default_sampler(steps=16, seed=4)
    assert (sampler.schedule, sampler.remasking, sampler.response_length) == ("dream", "entropy", 128)
    assert MaskedDiffusion(**sampler.arguments).describe() == sampler.describe()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"response_length": 16, "block_length": 5}, "block_length 5"),
        ({"steps": 6, "response_length": 16, "block_length": 4}, "4 blocks"),
        ({"schedule": "dynamic", "order": "left_to_right"}, "left_to_right"),
        ({"schedule": "dream", "order": "left_to_right"}, "give schedule='static'"),
        ({"schedule": "dynamic", "remasking": "entropy"}, "entropy"),
        ({"remasking": "best"}, "best"),
        ({"schedule": "slow"}, "slow"),
        ({"steps": 0}, "steps"),
        ({"cfg_scale": -1.0}, "cfg_scale"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        MaskedDiffusion(**arguments)


def test_a_model_without_a_mask_token_is_refused(llada: Model) -> None:
    causal = from_network(llada.network)
    with pytest.raises(InputError, match="mask token"):
        run(causal, [[5, 6, 7]], steps=2, response_length=4)


def official_llada(model: Model, prompt: list[int], steps: int, length: int, block: int) -> list[list[int]]:
    """The canvas after each step by LLaDA's rule, written out: masks of the prompt compete for the block's turns."""
    mask = model.mask_token_id
    x = torch.tensor([prompt + [mask] * length])
    seen = []
    for number in range(length // block):
        start, end = len(prompt) + number * block, len(prompt) + (number + 1) * block
        total, each = int((x[0, start:end] == mask).sum()), steps // (length // block)
        for step in range(each):
            with torch.no_grad():
                logits = model.network(input_ids=x, attention_mask=torch.ones_like(x)).logits[0]
            sure, tokens = logits.softmax(dim=-1).max(dim=-1)
            sure = sure.masked_fill(x[0] != mask, -torch.inf)
            sure[end:] = -torch.inf
            chosen = sure.topk(total // each + (step < total % each)).indices
            x[0, chosen] = tokens[chosen]
            seen.append(x[0].tolist())
    return seen


@pytest.mark.parametrize("block", [4, 8])
def test_masks_inside_a_prompt_are_filled_as_official_llada_fills_them(llada: Model, block: int) -> None:
    prompts = [[297, 500, 46, 500, 12], [18, 46, 3, 500, 77, 5, 9, 11], [1, 2, 3]]
    together = run(llada, prompts, steps=8, response_length=8, block_length=block)
    for row, prompt in enumerate(prompts):
        expected = official_llada(llada, prompt, 8, 8, block)
        for step, canvas in zip(together, expected, strict=True):
            assert step.committed[row].tolist() == canvas[len(prompt) :]
            assert step.prompt is not None
            assert step.prompt[row, -len(prompt) :].tolist() == canvas[: len(prompt)]
        alone = run(llada, [prompt], steps=8, response_length=8, block_length=block)
        torch.testing.assert_close(together[-1].phi[row], alone[-1].phi[0], atol=1e-5, rtol=0)


def test_dreams_filters_count_for_confidence(dream: Model) -> None:
    """With one token left after the filter every prediction is certain, so the leftmost are committed."""
    options = {"steps": 4, "response_length": 8, "schedule": "dream", "remasking": "maskgit_plus"}
    steps = run(dream, [[5, 6, 7]], top_k=1, **options)
    plain = run(dream, [[5, 6, 7]], **options)
    assert torch.equal(steps[0].predicted, plain[0].predicted)
    order = [int(at) for step in steps for at in step.is_committed[0].nonzero().squeeze(1)]
    assert list(dict.fromkeys(order)) == list(range(8))
    assert MaskedDiffusion(4, 8, remasking="maskgit_plus").remasking == "low_confidence"
    narrow = run(dream, [[5, 6, 7]], top_p=1e-6, **options)
    assert all(torch.equal(a.committed, b.committed) for a, b in zip(steps, narrow, strict=True))


def test_dreams_origin_commits_masks_with_the_grids_probability(dream: Model) -> None:
    options = {"response_length": 32, "schedule": "dream", "remasking": "origin"}
    counts = torch.zeros(4)
    for seed in range(24):
        steps = run(dream, [[5, 6, 7]], steps=4, seed=seed, **options)
        assert steps[-1].is_committed.all()
        counts += torch.tensor([float(step.is_committed.sum()) for step in steps])
    torch.testing.assert_close(counts / 24, torch.tensor([8.0, 16.0, 24.0, 32.0]), atol=1.5, rtol=0)
    with pytest.raises(InputError, match="give schedule='dream'"):
        MaskedDiffusion(4, 8, remasking="origin")


def test_dreams_alg_temp_draws_positions_and_near_zero_takes_the_surest(dream: Model) -> None:
    options = {"steps": 4, "response_length": 8, "schedule": "dream", "remasking": "entropy"}
    surest = run(dream, [[5, 6, 7]], **options)
    cold = run(dream, [[5, 6, 7]], alg_temp=1e-6, **options)
    hot = [run(dream, [[5, 6, 7]], alg_temp=10.0, seed=seed, **options) for seed in range(4)]
    assert all(torch.equal(a.committed, b.committed) for a, b in zip(surest, cold, strict=True))
    assert len({tuple(steps[1].is_committed[0].tolist()) for steps in hot}) > 1


def test_dreams_grid_ends_at_eps(dream: Model) -> None:
    steps = run(dream, [[5, 6, 7]], steps=4, response_length=16, schedule="dream", eps=0.5)
    grid = torch.linspace(1, 0.5, 5)
    left, counts = 16, []
    for step in range(4):
        counts.append(left if step == 3 else int(left * (1 - grid[step + 1] / grid[step])))
        left -= counts[-1]
    found = [int(step.is_committed.sum()) for step in steps]
    assert found == [sum(counts[: n + 1]) for n in range(4)]
