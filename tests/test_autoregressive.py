"""The autoregressive sampler against the reference fixtures and against transformers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from demur.errors import InputError
from demur.models import Model, load
from demur.samplers import Autoregressive, Step
from demur.samplers.autoregressive import draw_tokens

FIXTURES = Path(__file__).parent / "fixtures" / "ar"
ARCHITECTURES = ["llama_gqa", "qwen2_gqa"]
CASES = [(a, c) for a in ARCHITECTURES for c in json.loads((FIXTURES / a / "generate.json").read_text())]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def model_of(architecture: str) -> Model:
    return load(FIXTURES / architecture, device="cpu")


def run(
    model: Model, prompts: list[list[int]], *, layers: tuple = ("last",), prefill: list | None = None, **kw
) -> list[Step]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    return list(Autoregressive(**kw).steps(model, ids, mask, layers=layers, prefill=prefill))


@pytest.mark.parametrize(("architecture", "case"), CASES)
@pytest.mark.parametrize("pooling", ["paper", "released"])
def test_tokens_and_phi_are_those_of_the_reference(architecture: str, case: str, pooling: str) -> None:
    settings = json.loads((FIXTURES / architecture / "generate.json").read_text())[case]
    tensors = load_file(FIXTURES / architecture / "generate.safetensors")
    model = model_of(architecture)
    model.eos_token_ids = [settings["eos_token_id"]]
    steps = run(model, [settings["prompt_ids"]], steps=settings["T"], pooling=pooling)
    generated = settings["n_generated"]
    assert steps[-1].committed[0, :generated].tolist() == settings["tokens"][:generated]
    assert steps[-1].is_committed.sum() == generated
    phi = torch.stack([step.phi[0, 0] for step in steps])
    expected = tensors[f"{case}/phi_{'paper' if pooling == 'paper' else 'ref'}"]
    torch.testing.assert_close(phi, expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("pooling", ["paper", "released"])
def test_a_mixed_batch_equals_single_runs(architecture: str, pooling: str) -> None:
    model = model_of(architecture)
    shared = [7, 8, 9, 10, 11, 12]
    for prompts in ([[5], [1, 2, 3], list(range(40))], [shared, [*shared, 3], [*shared, *range(20, 50)]]):
        together = run(model, prompts, steps=24, pooling=pooling)
        for row, prompt in enumerate(prompts):
            alone = run(model, [prompt], steps=24, pooling=pooling)
            for one, both in zip(alone, together, strict=True):
                assert torch.equal(one.committed[0], both.committed[row])
                torch.testing.assert_close(one.phi[0], both.phi[row], atol=5e-5, rtol=0)


def test_what_all_prompts_begin_with_is_run_once(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(architecture)
    seen = []
    model.network.model.embed_tokens.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    run(model, [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7, 8], [1, 2, 3, 4, 5]], steps=1)
    assert [tuple(shape) for shape in seen[-3:]] == [(1, 4), (3, 3), (3, 1)]  # before: proofs on the network


def test_phi_is_carried_to_the_last_step_when_every_row_has_finished(architecture: str) -> None:
    model = model_of(architecture)
    free = run(model, [[30, 209, 2]], steps=6)
    model.eos_token_ids = [int(free[1].committed[0, 1])]
    steps = run(model, [[30, 209, 2]], steps=6)
    assert [step.index for step in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1].is_committed[0].tolist() == [True, True, False, False, False, False]
    assert torch.equal(steps[1].phi, steps[-1].phi)
    assert not torch.equal(steps[0].phi, steps[1].phi)


def test_finished_rows_are_not_fed_any_more(architecture: str) -> None:
    model = model_of(architecture)
    prompts = [[30, 209, 2, 80, 255], [473, 176, 91, 63, 151]]
    first = run(model, prompts, steps=3)
    model.eos_token_ids = [int(first[0].committed[0, 0])]
    fed = []
    model.network.model.embed_tokens.register_forward_hook(lambda module, inputs, output: fed.append(len(inputs[0])))
    run(model, prompts, steps=3)
    assert fed[:3] == [2, 2, 1]


def test_forced_tokens_stand_and_the_rest_is_free(architecture: str) -> None:
    model = model_of(architecture)
    steps = run(model, [[1, 2, 3], [4, 5]], steps=5, prefill=[[9, 8], []])
    assert steps[-1].committed[0, :2].tolist() == [9, 8]
    free = run(model, [[4, 5]], steps=5)
    assert torch.equal(steps[-1].committed[1], free[-1].committed[0])
    continued = run(model, [[1, 2, 3, 9, 8]], steps=3)
    assert torch.equal(steps[-1].committed[0, 2:], continued[-1].committed[0])


def test_wrong_inputs_are_refused_with_what_is_expected(architecture: str) -> None:
    model = model_of(architecture)
    ids = torch.tensor([[1, 2, 3]])
    with pytest.raises(InputError, match="pad prompts on the left"):
        next(Autoregressive(2).steps(model, ids, torch.tensor([[1, 1, 0]])))
    with pytest.raises(InputError, match=r"must both be \[batch, prompt\]"):
        next(Autoregressive(2).steps(model, ids, torch.tensor([[1, 1]])))
    with pytest.raises(InputError, match="more than the response's 2 positions"):
        next(Autoregressive(2).steps(model, ids, prefill=[[1, 2, 3]]))
    for wrong in ({"steps": 0}, {"temperature": -1}, {"pooling": "mean"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Autoregressive(**wrong)


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    draws = (torch.arange(3000) + 0.5) / 3000
    tokens = draw_tokens(logits.expand(3000, 3), 2.0, draws.double())
    shares = torch.bincount(tokens, minlength=3) / 3000
    torch.testing.assert_close(shares, (logits[0] / 2).softmax(-1), atol=1e-3, rtol=0)
