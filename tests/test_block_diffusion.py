"""Block diffusion against the official samplers' numbers and against its own definitions."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import demur
import references
from demur.errors import InputError
from demur.looks import Looks
from demur.models import Model, load
from demur.samplers import BlockDiffusion, MaskedDiffusion
from references import FIXTURES, require_forward, require_official, require_same_alone, run

SDAR = "sdar/sdar_gqa"


@pytest.fixture(scope="module")
def sdar() -> Model:
    return load(FIXTURES / SDAR, device="cpu")


def sdar_sampler(case: str, **options: Any) -> BlockDiffusion:
    """The sampler that runs a case of SDAR's two `block_diffusion_generate`."""
    settings = references.cases(SDAR)[case]
    strategies: dict[str, dict[str, Any]] = {
        "static": {"remasking": "low_confidence_static"},
        "dynamic": {"remasking": "low_confidence_dynamic", "threshold": settings["threshold"]},
        "sequential": {"remasking": "sequential"},
        "dynamic_top1": {
            "remasking": "low_confidence_dynamic",
            "threshold": settings["threshold"],
            "confidence": "filtered",
        },
    }
    return BlockDiffusion(
        response_length=settings["gen_length"],
        block_length=settings["block_length"],
        denoising_steps=settings["denoising_steps"],
        temperature=settings["temperature"],
        top_k=settings["top_k"],
        stop_ids=settings["stop_ids"] or [],
        **strategies[settings["strategy"]],
        **options,
    )


@pytest.mark.parametrize("pooling", ["paper", "released"])
@pytest.mark.parametrize("case", references.cases(SDAR))
def test_sdar_steps_and_phi_are_those_of_the_official_sampler(sdar: Model, case: str, pooling: str) -> None:
    require_official(SDAR, case, sdar, sdar_sampler(case, pooling=pooling))


def test_sdar_logits_and_states_are_those_of_the_official_network(sdar: Model) -> None:
    require_forward(SDAR, sdar)


@pytest.mark.parametrize("schedule", ["static", "dynamic", "rounded"])
@pytest.mark.parametrize("blocks_from", ["start", "response"])
def test_rows_of_mixed_lengths_are_what_each_is_alone(sdar: Model, schedule: Any, blocks_from: Any) -> None:
    options = {"schedule": schedule, "threshold": 0.3, "blocks_from": blocks_from}
    require_same_alone(sdar, BlockDiffusion(36, 10, block_length=4, **options), 300)


def test_drawn_tokens_and_random_order_do_not_depend_on_the_batch(sdar: Model) -> None:
    require_same_alone(sdar, BlockDiffusion(12, 8, remasking="random", temperature=0.8, top_k=5, top_p=0.9), 300)


def test_cached_blocks_have_the_states_of_a_full_pass(sdar: Model) -> None:
    prompt = list(range(9))
    sampler = BlockDiffusion(response_length=16, block_length=4, denoising_steps=4, stop_ids=[])
    steps = run(sdar, sampler, [prompt])
    canvas = torch.tensor([prompt + steps[-2].committed[0].tolist()])
    with torch.no_grad(), sdar.states([3]) as states:
        sdar.network(input_ids=canvas, attention_mask=torch.ones_like(canvas))
    answers = states[0][0, len(prompt) :]
    expected = answers[steps[-1].is_committed[0]].mean(dim=0)
    torch.testing.assert_close(steps[-1].phi[0, 0], expected, atol=1e-5, rtol=0)


def test_every_block_has_an_equal_share_of_the_steps_and_idles_after_its_last(sdar: Model) -> None:
    sampler = BlockDiffusion(30, 8, block_length=4, denoising_steps=4, stop_ids=[])
    assert (sampler.blocks, sampler.share) == (3, 10)
    steps = run(sdar, sampler, [[1, 2, 3], [4, 5, 6, 7]])
    assert [not step.idle[0] for step in steps] == [i % 10 < (1, 4, 4)[i // 10] for i in range(30)]
    assert [not step.idle[1] for step in steps] == [i % 10 < 4 and i < 20 for i in range(30)]
    assert all(torch.equal(steps[i].phi[1], steps[23].phi[1]) for i in range(23, 30))


def test_one_position_a_step_from_the_left_is_autoregressive_order(sdar: Model) -> None:
    sampler = sdar.default_sampler(12, response_length=8, block_length=4, order="left_to_right", stop_ids=[])
    worked = [step for step in run(sdar, sampler, [[1, 2, 3, 4]]) if not step.idle[0]]
    assert [int(step.is_committed.sum()) for step in worked] == list(range(1, 9))
    assert all(step.is_committed[0, : index + 1].all() for index, step in enumerate(worked))


def test_forced_tokens_stand_from_the_first_step_and_the_rest_is_filled_in(sdar: Model) -> None:
    forced = torch.tensor([[-1, 40, 41, -1, -1, 42, -1, -1]])
    sampler = BlockDiffusion(12, 8, block_length=4, stop_ids=[])
    steps = run(sdar, sampler, [[1, 2, 3, 4]], prefill=forced)
    assert steps[0].committed[0, [1, 2, 5]].tolist() == [40, 41, 42]
    assert steps[-1].committed[0, [1, 2, 5]].tolist() == [40, 41, 42]
    assert steps[-1].is_committed[0, :8].all()
    whole = run(sdar, sampler, [[1, 2, 3, 4]], prefill=torch.tensor([[9] * 8]))
    assert all(step.phi.isfinite().all() for step in whole)
    assert all(step.idle.all() for step in whole)


def test_a_response_that_the_model_gave_forces_the_very_same_steps(sdar: Model) -> None:
    sampler = BlockDiffusion(12, 8, block_length=4, stop_ids=[])
    prompt = torch.tensor([[5, 6, 7, 8]])
    own = list(sampler.steps(sdar, prompt))
    response = own[-1].committed.clone()
    response[response == sdar.mask_token_id] = 0  # positions that this row does not have
    again = list(sampler.forced_steps(sdar, prompt, responses=response))
    assert all(
        torch.equal(a.committed, b.committed) and torch.equal(a.phi, b.phi) for a, b in zip(own, again, strict=True)
    )


def test_a_recording_does_not_depend_on_the_batch_size(sdar: Model, tmp_path: Path) -> None:
    prompts = [{"id": str(n), "token_ids": list(range(1, n))} for n in (4, 6, 9)]
    whole = demur.record(sdar, prompts, steps=12, batch_size=3)
    part = demur.record(sdar, prompts, steps=12, batch_size=1, out=tmp_path / "run")
    assert abs(whole.phi - part.phi).max() < 1e-5
    assert whole.steps_tokens(1).predicted.tolist() == part.steps_tokens(1).predicted.tolist()


def test_looks_keep_the_prompts_state_and_the_mean_of_the_latest_tokens(sdar: Model) -> None:
    sampler = BlockDiffusion(12, 8, block_length=4, stop_ids=[])
    plain = run(sdar, sampler, [[1, 2, 3, 4, 5]])
    looked = run(sdar, sampler, [[1, 2, 3, 4, 5]], looks=Looks((0, 1, 4, 12), window=3))
    assert [step.index for step in looked] == list(range(13))
    assert all(torch.equal(a.committed, b.committed) for a, b in zip(plain, looked[1:], strict=True))
    torch.testing.assert_close(looked[-1].phi, plain[-1].phi)
    canvas = torch.tensor([[1, 2, 3, 4, 5, *looked[-2].committed[0].tolist()]])
    with torch.no_grad(), sdar.states([3]) as states:
        sdar.network(input_ids=canvas, attention_mask=torch.ones_like(canvas))
    since = [next(s.index for s in looked if s.is_committed[0, at]) for at in range(11)]
    latest = sorted(range(11), key=lambda at: (since[at], at))[-3:]
    assert looked[-1].window is not None
    torch.testing.assert_close(looked[-1].window[0, 0], states[0][0, 5:][latest].mean(dim=0), atol=1e-5, rtol=0)


def test_the_check_proves_a_block_model(sdar: Model) -> None:
    found = demur.check(sdar, quick=True)
    assert {row.name: row.outcome for row in found.rows}["states"] == "ok", found
    assert not [row for row in found.rows if row.outcome == "failed"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 3, "response_length": 16}, "fewer than the 5 blocks"),
        ({"steps": 10, "response_length": 16, "denoising_steps": 4}, "give steps=20"),
        ({"steps": 10, "response_length": 16, "order": "left_to_right"}, "give steps=20"),
        ({"remasking": "best"}, "must be one of"),
        ({"block_length": 0}, "block_length is 0"),
    ],
)
def test_arguments_that_cannot_be_met_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        BlockDiffusion(**options)


def test_a_block_model_is_not_decoded_by_another_sampler(sdar: Model) -> None:
    with pytest.raises(InputError, match="is decoded by BlockDiffusion, not by MaskedDiffusion"):
        list(MaskedDiffusion(4, 4).steps(sdar, torch.tensor([[1, 2]])))


def sdar_with(tmp_path: Path, **changes: Any) -> Path:
    folder = shutil.copytree(FIXTURES / SDAR, tmp_path / "sdar")
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return Path(folder)


def test_keys_of_a_config_that_nobody_knows_are_named(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="does not know the keys attention_sinks, gate_type"):
        load(sdar_with(tmp_path, attention_sinks=4, gate_type="soft"), device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(FIXTURES / SDAR, device="cpu")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_experts": 8}, "num_experts belongs to SDAR-MoE"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling is"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"hidden_size": None}, "hidden_size is not there"),
        ({"block_size": 0}, "block_size is 0"),
    ],
)
def test_what_the_blocks_cannot_express_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        load(sdar_with(tmp_path, **changes), device="cpu")
