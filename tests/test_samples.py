"""Several samples of one prompt, and arguments that a sampler would misread."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

import demur
from demur.errors import InputError
from demur.models import Model, load
from demur.samplers import Autoregressive, MaskedDiffusion, Sampler, UniformDiffusion
from demur.samplers.block_diffusion.choice import guess_token
from demur.samplers.head import Head
from demur.samplers.masked_diffusion.confidence import guess

FIXTURES = Path(__file__).parent / "fixtures"
CASES = [
    ("ar/llama_gqa", Autoregressive(6, temperature=2.0)),
    ("llada/llada_mha", MaskedDiffusion(4, 8, temperature=2.0)),
]
ROWS = [{"token_ids": ids} for ids in ([5, 6, 7], [9, 8], [5, 6, 7], [5, 6, 7])]


def texts(model: Model, sampler: Sampler, batch_size: int, **options: Any) -> list[tuple[int, ...]]:
    recording = demur.record(model, ROWS, sampler, batch_size=batch_size, progress=False, **options)
    return [tuple(recording.steps_tokens(row).predicted[-1].tolist()) for row in range(len(ROWS))]


@pytest.mark.parametrize(("name", "sampler"), CASES)
def test_samples_of_one_prompt_differ_and_are_the_same_in_every_batch(name: str, sampler: Sampler) -> None:
    model = load(FIXTURES / name, device="cpu")
    found = texts(model, sampler, 4)
    assert len({found[0], found[2], found[3]}) == 3
    assert texts(model, sampler, 1) == texts(model, sampler, 3) == found
    alone = demur.record(model, ROWS[:1], sampler, progress=False)
    assert tuple(alone.steps_tokens(0).predicted[-1].tolist()) == found[0]


def test_samples_are_the_same_after_a_recording_was_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, sampler = CASES[0]
    model = load(FIXTURES / name, device="cpu")
    whole = texts(model, sampler, 1)
    written = []
    from demur.recording import folder

    write = folder.write_shard

    def failing(*given: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(write(*given))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(folder, "write_shard", failing)
        texts(model, sampler, 1, out=tmp_path / "r")
    assert texts(model, sampler, 4, out=tmp_path / "r") == whole


@pytest.mark.parametrize("sampler", [Autoregressive, MaskedDiffusion, UniformDiffusion])
@pytest.mark.parametrize(
    "wrong", [{"steps": 2.5}, {"steps": True}, {"steps": "4"}, {"seed": 1.5}, {"pooling": ["paper"]}]
)
def test_values_that_a_sampler_would_misread_are_refused(sampler: type[Sampler], wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        sampler(**wrong)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", True, -0.1])
def test_a_temperature_that_is_none_is_refused(value: Any) -> None:
    for sampler in (Autoregressive, MaskedDiffusion):
        with pytest.raises(InputError, match="temperature"):
            sampler(temperature=value)
    with pytest.raises(InputError, match="suppress_eos"):
        Autoregressive(suppress_eos="no")


def test_whole_numbers_of_numpy_are_taken() -> None:
    assert Autoregressive(steps=np.int64(4), seed=np.int32(1)).describe()["steps"] == 4
    assert isinstance(MaskedDiffusion(np.int64(4), np.int64(8)).response_length, int)


def test_a_sampler_of_another_family_is_refused_before_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    for (name, _), other in zip(CASES, (MaskedDiffusion(2, 4), Autoregressive(2)), strict=True):
        model = load(FIXTURES / name, device="cpu")
        model.network.register_forward_pre_hook(lambda *_: passes.append(1))
        with pytest.raises(InputError, match="of the family"):
            next(other.steps(model, torch.tensor([[5, 6]])))
        with pytest.raises(InputError, match="of the family"):
            demur.record(model, ROWS, other, progress=False)
    assert not passes


def test_confidence_is_the_softmax_to_the_last_bit() -> None:
    logits = torch.randn(200, 50, generator=torch.Generator().manual_seed(0)) * 8
    tokens, confidence = guess(logits, "low_confidence", 0.0, None, tempered=False)
    assert torch.equal(confidence, logits.softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1))


def test_logits_of_one_call_take_the_memory_of_the_last_and_are_those_of_the_head() -> None:
    plain = torch.nn.Linear(8, 300, bias=False)
    head, read = Head(plain), torch.randn(5, 8)
    with torch.no_grad():
        first = head.logits(read)
        assert torch.equal(first, plain(read))
        second = head.logits(read[:3])
        assert second.data_ptr() == first.data_ptr()
        biased = torch.nn.Linear(8, 300)
        assert torch.equal(Head(biased).logits(read), biased(read))
        half = plain.bfloat16()
        assert torch.equal(Head(half).logits(read.bfloat16()), half(read.bfloat16()).float())


@pytest.mark.parametrize("rule", ["low_confidence", "margin", "entropy"])
def test_confidence_does_not_depend_on_how_many_rows_are_copied_at_a_time(
    rule: Literal["low_confidence", "margin", "entropy"], monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = 3 * torch.randn(7, 300)
    whole = guess(logits, rule, 0.0, None, tempered=False)
    chosen = guess_token(logits, 0.0, 0, 1.0, "plain", None)
    monkeypatch.setattr("demur.samplers.head.LOGITS_OF_A_PIECE", 600)
    for one, other in zip(whole, guess(logits, rule, 0.0, None, tempered=False), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(chosen, guess_token(logits, 0.0, 0, 1.0, "plain", None), strict=True):
        assert torch.equal(one, other)
