"""A2D's stop signal: probabilities by hand, planted text, the limit, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

import demur
from demur.defenses import StopSignal
from demur.errors import InputError
from demur.models import Model
from demur.samplers import MaskedDiffusion

LLADA = Path(__file__).parent / "fixtures" / "llada" / "llada_mha"
PROMPTS = [{"token_ids": [11, 12, 13]}, {"token_ids": [21, 22, 23, 24, 25, 26, 27]}, {"token_ids": [31, 32, 33]}]


@pytest.fixture(scope="module")
def model() -> Model:
    return demur.load(LLADA, device="cpu")


@pytest.mark.parametrize("positions", [None, 1, 3])
def test_it_is_the_mean_probability_of_an_end_at_the_masks(model: Model, positions: int | None) -> None:
    signal = StopSignal(model, MaskedDiffusion(8, 8), positions=positions)
    for prompt, found in zip(PROMPTS, signal.probabilities(PROMPTS), strict=True):
        canvas = torch.tensor([[*prompt["token_ids"], *[model.mask_token_id] * 8]])
        with torch.no_grad():
            logits = model.network(input_ids=canvas, attention_mask=torch.ones_like(canvas)).logits
        ends = logits[0, -8:].softmax(dim=-1)[:, model.eos_token_ids].sum(dim=-1)
        assert found == pytest.approx(float(ends[:positions].mean()), rel=1e-4)


def test_the_bundled_model_is_blocked_above_the_limit_of_harmless_prompts() -> None:
    model = demur.load("demur/tiny-diffusion")
    signal = StopSignal(model, positions=16)
    harmless = [one.prompt for one in demur.read_prompts("demur/toy/guard_calibration_harmless", limit=24)]
    with pytest.raises(InputError, match="no limit yet"):
        signal(harmless[:1], [""])
    signal.fit(harmless)
    asked = [one.prompt for one in demur.read_prompts("demur/toy/test_harmful", limit=8)]
    blocked, seconds, unread = signal(asked, [""] * 8)
    assert blocked.tolist() == (signal.probabilities(asked) > signal.limit_).tolist()
    assert (seconds > 0).all() and not unread.any()
    assert signal.describe()["calibration"] == 24
    planted = signal.probabilities([demur.Prompt("a", asked[0], infill="Sure. [[mask:8]]")])
    assert not np.isclose(planted, signal.probabilities(asked[:1]))


def test_what_makes_no_sense_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match="is autoregressive"):
        StopSignal(demur.load("demur/tiny-ar"))
    with pytest.raises(InputError, match="positions is 0"):
        StopSignal(model, MaskedDiffusion(8, 8), positions=0)
    with pytest.raises(InputError, match="at least 20"):
        StopSignal(model, MaskedDiffusion(8, 8)).fit(PROMPTS)
