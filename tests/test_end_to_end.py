"""From prompts to sigma through the whole library, against the reference's own run."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import demur
from demur.samplers import Autoregressive, MaskedDiffusion, Sampler
from demur.signal.formula import sri

FIXTURES = Path(__file__).parent / "fixtures"
FOLDERS = {"llama_gqa": "ar/llama_gqa", "llada_mha": "llada/llada_mha"}


def sampler_of(settings: dict, pooling: str) -> Sampler:
    if "T" in settings:
        return Autoregressive(settings["T"], pooling=pooling)
    return MaskedDiffusion(
        settings["steps"], settings["gen_length"], block_length=settings["block_length"], pooling=pooling
    )


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("pooling", ["paper", "released"])
def test_tokens_anchors_and_sigma_are_those_of_the_reference(name: str, pooling: str) -> None:
    case = json.loads((FIXTURES / "end_to_end.json").read_text())[name]
    stored = load_file(FIXTURES / "end_to_end.safetensors")
    expected = {k.removeprefix(f"{name}/"): v for k, v in stored.items() if k.startswith(f"{name}/")}
    reading = "paper" if pooling == "paper" else "ref"
    model, sampler = demur.load(FIXTURES / FOLDERS[name], device="cpu"), sampler_of(case["settings"], pooling)
    recordings = [
        demur.record(model, [{"token_ids": ids} for ids in case[f"{kind}_prompts"]], sampler, batch_size=4)
        for kind in ("harmless", "harmful", "test")
    ]
    phi = np.concatenate([recording.phi[:, :, 0] for recording in recordings])
    np.testing.assert_allclose(phi, expected[f"{reading}/acts"], atol=5e-5)
    tokens = [recording.steps_tokens(row) for recording in recordings for row in range(len(recording))]
    for found, wanted in zip(tokens, expected["tokens"], strict=True):
        known = found.is_committed[-1]
        np.testing.assert_array_equal(found.predicted[-1][known], wanted[known])
    anchors = demur.Anchors.fit(
        *recordings[:2],
        minimum=1,
        harmless_refused=np.array(case["harmless_refusal"]),
        harmful_refused=np.array(case["harmful_refusal"]),
    )
    np.testing.assert_allclose(anchors.harmless[:, 0], expected[f"{reading}/anchor_harmless"], atol=5e-5)
    np.testing.assert_allclose(anchors.harmful[:, 0], expected[f"{reading}/anchor_harmful"], atol=5e-5)
    for tau in case["taus"]:
        sigma = sri(recordings[2].phi[:, :, 0], anchors.harmless[:, 0], anchors.harmful[:, 0], tau=tau)
        np.testing.assert_allclose(sigma, expected[f"{reading}/sigma64_tau{tau}"], atol=1e-5)
