"""Runs of a sampler held against reference numbers of a family's official code, and against themselves in a batch."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from demur.models import Model
from demur.samplers import Sampler, Step

FIXTURES = Path(__file__).parent / "fixtures"
LENGTHS = (3, 11, 5, 8, 14, 4)


@cache
def cases(name: str) -> dict[str, dict[str, Any]]:
    """The reference cases of a folder by name."""
    return dict(json.loads((FIXTURES / name / "generate.json").read_text()))


@cache
def numbers(name: str, file: str = "generate") -> dict[str, torch.Tensor]:
    return load_file(FIXTURES / name / f"{file}.safetensors")


def run(model: Model, sampler: Sampler, prompts: Sequence[Sequence[int]], **options: Any) -> list[Step]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[7] * (longest - len(one)) + list(one) for one in prompts])
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts])
    return list(sampler.steps(model, ids, mask, **options))


def require_official(name: str, case: str, model: Model, sampler: Sampler, *, prompt_in_x: bool = True) -> None:
    """Every step that is not idle is the reference's: canvas, predictions and, as its pooling asks, phi."""
    settings, found = cases(name)[case], numbers(name)
    steps = run(model, sampler, [settings["prompt_ids"]])
    worked = [step for step in steps if step.idle is None or not step.idle[0]]
    length = settings.get("response_length", len(settings["tokens"]))
    start = len(settings["prompt_ids"]) if prompt_in_x else 0
    assert len(worked) == settings["steps"]
    for index, step in enumerate(worked):
        assert step.committed[0, :length].tolist() == found[f"{case}/x"][index + 1, start:].tolist()
        assert step.predicted[0, :length].tolist() == found[f"{case}/predicted"][index].tolist()
    guided = f"{case}/phi_ref_cond" in found
    kind = "phi_paper" if sampler.pooling == "paper" else "phi_ref_cond" if guided else "phi_ref"
    expected = found[f"{case}/{kind}"]
    there = ~expected.isnan().any(dim=1)
    phi = torch.stack([step.phi[0, 0] for step in worked])
    assert phi.isfinite().all()
    torch.testing.assert_close(phi[there], expected[there], atol=5e-5, rtol=0)


def require_forward(name: str, model: Model, positions: torch.Tensor | None = None) -> None:
    """Logits and states of a plain pass are the official network's."""
    found = numbers(name, "forward")
    ids = found["in1.input_ids"].long().unsqueeze(0)
    with torch.no_grad(), model.states([model.layer_count]) as states:
        options = {} if positions is None else {"position_ids": positions.long().unsqueeze(0)}
        logits = model.network(input_ids=ids, attention_mask=torch.ones_like(ids), **options).logits[0]
    torch.testing.assert_close(logits, found["in1.logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(states[0][0], found["in1.final_hidden"], atol=5e-5, rtol=0)


def require_same_alone(model: Model, sampler: Sampler, vocabulary: int = 240) -> None:
    """Rows of mixed lengths in one batch take the steps, and have the states, that each has alone."""
    generator = torch.Generator().manual_seed(3)
    prompts = [torch.randint(0, vocabulary, (length,), generator=generator).tolist() for length in LENGTHS]
    together = run(model, sampler, prompts)
    for row, prompt in enumerate(prompts):
        for step, other in zip(run(model, sampler, [prompt]), together, strict=True):
            assert torch.equal(step.committed[0], other.committed[row])
            assert torch.equal(step.predicted[0], other.predicted[row])
            torch.testing.assert_close(step.phi[0], other.phi[row], atol=1e-5, rtol=0)
