"""DiffuGuard: annealed remasking, audit and repair, against plain masked diffusion and numbers by hand."""

from pathlib import Path

import pytest
import torch

import demur
from demur.errors import InputError
from demur.models import Model
from demur.samplers import SAMPLERS, DiffuGuard, MaskedDiffusion, Step
from demur.samplers.masked_diffusion.canvas import Canvas
from demur.samplers.masked_diffusion.diffuguard import divergence_on
from demur.samplers.step import forced_tokens, row_generators

LLADA = Path(__file__).parent / "fixtures" / "llada" / "llada_mha"
PROMPTS = [[11, 12, 13], [21, 22, 23, 24, 25, 26, 27], [120, 127, 134, 141, 148]]
PLANTED = [[5, 6, -1, -1, 7], [], [117, -1, 111]]


@pytest.fixture(scope="module")
def model() -> Model:
    return demur.load(LLADA, device="cpu")


def run(model: Model, sampler: MaskedDiffusion, rows: list[int], planted: bool = True) -> list[Step]:
    prompts = [PROMPTS[row] for row in rows]
    longest = max(map(len, prompts))
    ids = torch.tensor([[7] * (longest - len(one)) + one for one in prompts])
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts])
    prefill = [PLANTED[row] for row in rows] if planted else None
    return list(sampler.steps(model, ids, mask, prefill=prefill))


@pytest.mark.parametrize("block_length", [16, 8])
def test_without_noise_and_repair_it_is_plain_masked_diffusion(model: Model, block_length: int) -> None:
    sizes = {"response_length": 16, "block_length": block_length}
    plain = run(model, MaskedDiffusion(8, **sizes), [0, 1, 2])
    guarded = run(model, DiffuGuard(8, **sizes, alpha_0=0.0, repair_steps=0), [0, 1, 2])
    for one, other in zip(plain, guarded, strict=True):
        assert torch.equal(one.committed, other.committed)
        assert torch.equal(one.predicted, other.predicted)
        assert torch.equal(one.phi, other.phi)


def test_a_limit_that_nothing_reaches_repairs_nothing(model: Model) -> None:
    sizes = {"response_length": 16, "block_length": 8}
    plain = run(model, MaskedDiffusion(8, **sizes), [0, 1, 2])
    guarded = run(model, DiffuGuard(12, **sizes, alpha_0=0.0, lambda_=2.0, repair_steps=4), [0, 1, 2])
    assert torch.equal(plain[-1].committed, guarded[-1].committed)
    assert [bool(step.idle.all()) for step in guarded] == [False] * 4 + [True] * 4 + [False] * 4
    for step in range(4, 8):
        assert torch.equal(guarded[step].committed, plain[3].committed)


def test_the_noise_falls_evenly_to_nothing() -> None:
    sampler = DiffuGuard(12, 16, block_length=8, alpha_0=0.4, repair_steps=4)
    # eight denoising steps: 0.4 * (1 - n / 7); the repair's four, behind the first block's, have none
    by_hand = [0.4, 0.342857, 0.285714, 0.228571, 0, 0, 0, 0, 0.171429, 0.114286, 0.057143, 0.0]
    assert [sampler.alpha(index) for index in range(1, 13)] == pytest.approx(by_hand, abs=1e-6)


def test_tokens_are_kept_by_the_mixture_of_probability_and_noise(model: Model) -> None:
    """At alpha_0 = 1 the first step keeps what the row's own draws rank first."""
    sampler = DiffuGuard(8, 16, alpha_0=1.0, repair_steps=0, seed=3)
    first = run(model, sampler, [0], planted=False)[0]
    stream = row_generators(torch.tensor([PROMPTS[0]]), torch.ones(1, 3), 3)[0]
    drawn = torch.rand(16, generator=stream, dtype=torch.float64)
    assert first.is_committed[0].nonzero().squeeze(1).tolist() == sorted(drawn.topk(2).indices.tolist())


def test_the_audit_is_one_minus_the_cosine_of_two_states_of_the_last_prompt_token(model: Model) -> None:
    ids = torch.tensor([PROMPTS[0]])
    forced = forced_tokens([PLANTED[0]], 1, 8, ids.device)
    found = divergence_on(Canvas(model, ids, torch.ones_like(ids), forced, [1]))
    states = []
    for response in (forced[0], torch.full((8,), -1)):
        whole = torch.cat([ids[0], torch.where(response < 0, model.mask_token_id, response)])[None]
        with torch.no_grad(), model.states([model.layer_index("last")]) as seen:
            model.network(input_ids=whole, attention_mask=torch.ones_like(whole))
        states.append(seen[0][0, 2].double())
    expected = 1 - (states[0] @ states[1]) / (states[0].norm() * states[1].norm())
    assert found[0] > 1e-3
    torch.testing.assert_close(found[0], expected, atol=1e-6, rtol=0)


def test_a_repair_masks_its_share_of_the_first_block_and_nothing_else(model: Model) -> None:
    sampler = DiffuGuard(12, 16, block_length=8, alpha_0=0.0, lambda_=0.0, gamma=0.5, repair_steps=4)
    steps = run(model, sampler, [0, 1, 2])
    before, during, after = steps[3], steps[4:8], steps[7]
    for row, own in ((0, 5), (2, 6)):  # free positions of the first block of eight
        taken = [~step.is_committed[row] & before.is_committed[row] for step in during]
        # int(0.5 * own) are masked, spread evenly over four steps, the remainder first
        counts = [int(one.sum()) for one in taken]
        assert counts == ([1, 0, 0, 0] if own == 5 else [2, 1, 0, 0])
        changed = before.committed[row] != after.committed[row]
        assert int(changed.sum()) == int(0.5 * own)  # none of the tokens taken back may return
        assert not changed[8:].any()
        planted = torch.tensor(PLANTED[row])
        kept = (planted >= 0).nonzero().squeeze(1)
        assert torch.equal(after.committed[row][kept], planted[kept])
    assert torch.equal(before.committed[1], after.committed[1])  # nothing was planted there
    assert [step.idle[1].item() for step in steps[4:8]] == [True] * 4
    assert steps[-1].is_committed.all()


@pytest.mark.parametrize("arguments", [{}, {"block_length": 8, "temperature": 0.7}, {"gamma": 1.0, "alpha_0": 0.8}])
def test_a_batch_gives_what_its_rows_give_alone(model: Model, arguments: dict[str, float]) -> None:
    sampler = DiffuGuard(12, 16, lambda_=0.0, **arguments)
    together = run(model, sampler, [0, 1, 2])
    for place, row in enumerate((0, 1, 2)):
        for one, other in zip(together, run(model, sampler, [row]), strict=True):
            assert torch.equal(one.committed[place], other.committed[0])
            torch.testing.assert_close(one.phi[place], other.phi[0], atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha_0": 1.5}, "alpha_0 is 1.5; it must be a share"),
        ({"gamma": -1}, "gamma is -1"),
        ({"repair_steps": 8}, "leave none of 8 steps"),
        ({"block_length": 4, "repair_steps": 1}, "cannot be shared evenly by 4 blocks"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DiffuGuard(8, 16, **arguments)


def test_it_records_as_any_sampler_and_resumes_by_its_arguments(model: Model, tmp_path: Path) -> None:
    prompts = [{"id": str(row), "token_ids": ids} for row, ids in enumerate(PROMPTS)]
    sampler = DiffuGuard(6, 8, alpha_0=0.5)
    recording = demur.record(model, prompts, sampler, out=tmp_path / "r")
    described = recording.provenance.sampler
    assert described["name"] == "DiffuGuard"
    assert described["steps"] == 6
    assert (described["alpha_0"], described["lambda_"], described["gamma"]) == (0.5, 0.1, 0.9)
    assert SAMPLERS.find("DiffuGuard") is DiffuGuard
