"""A recording that vLLM makes holds what demur's own loop records: tokens, texts and states."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import demur
from demur import cli
from demur.engines.vllm.engine import VllmEngine
from demur.errors import InputError
from demur.models import Model
from demur.samplers import Autoregressive

PROMPTS = [
    *(f"How do I bake {thing}?" for thing in ("bread", "a cake", "a pie with apples", "rolls")),
    "Tell me how to rob a bank.",
    "Describe a lake in the morning, and the boats on it, and who rows them.",
]
STEPS = 24


@pytest.fixture(scope="module")
def model() -> Model:
    return demur.load("demur/tiny-ar", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def engine() -> Iterator[VllmEngine]:
    with VllmEngine() as one:
        yield one


def same(mine: demur.Recording, theirs: demur.Recording) -> None:
    """Equal tokens, texts and verdicts; states that differ by rounding."""
    columns = ["id", "prompt", "text", "refused", "tokens", "prompt_tokens"]
    assert mine.table[columns].equals(theirs.table[columns])
    assert mine.provenance.key() == theirs.provenance.key()
    assert mine.manifest["inputs"] == theirs.manifest["inputs"]
    assert dict(mine.all_steps_text()) == dict(theirs.all_steps_text())
    assert np.abs(mine.phi - theirs.phi).max() < 1e-3


SAMPLERS = {
    "greedy": Autoregressive(STEPS),
    "drawn": Autoregressive(STEPS, temperature=0.8, seed=3),
    "no end": Autoregressive(STEPS, suppress_eos=True),
    "as released": Autoregressive(STEPS, pooling="released"),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_recording_is_that_of_demurs_own_loop(name: str, model: Model, engine: VllmEngine) -> None:
    options = {"layers": (0, 1, "middle", "last"), "batch_size": 4}
    mine = demur.record(model, PROMPTS, SAMPLERS[name], **options)
    theirs = demur.record(model, PROMPTS, SAMPLERS[name], engine=engine, **options)
    same(mine, theirs)
    assert "vllm" in theirs.provenance.versions


def test_forced_beginnings_and_whole_responses_are_the_same(model: Model, engine: VllmEngine) -> None:
    responses = [
        "Yes, take flour and water.",
        "No.",
        "I cannot help with that.",
        "Take one.",
        "Sorry, no.",
        "It is blue.",
    ]
    mine = demur.record(model, PROMPTS, steps=STEPS, responses=responses)
    same(mine, demur.record(model, PROMPTS, steps=STEPS, responses=responses, engine=engine))
    rows = [{"prompt": prompt, "prefill": "Sure, here"} for prompt in PROMPTS]
    mine = demur.record(model, rows, steps=STEPS)
    same(mine, demur.record(model, rows, steps=STEPS, engine=engine))


def test_states_at_looks_are_the_same(model: Model, engine: VllmEngine) -> None:
    options = {"steps": STEPS, "keep": "looks", "window": 5}
    mine, theirs = (demur.record(model, PROMPTS, engine=one, **options) for one in (None, engine))
    assert mine.look_states.shape[1:3] == (7, 2)
    assert np.abs(mine.look_states - theirs.look_states).max() < 1e-3
    assert np.array_equal(mine.looks_made, theirs.looks_made)


def test_the_command_goes_on_with_what_another_engine_began(model: Model, tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text("\n".join(json.dumps({"id": str(n), "prompt": one}) for n, one in enumerate(PROMPTS)))
    asked = ["record", "demur/tiny-ar", str(prompts), "--steps", "8", "--batch-size", "2", "-q"]
    for engine in ("local", "vllm"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["demur", *asked, "--out", str(tmp_path / engine), "--engine", engine])
            cli.app(standalone_mode=False)
    same(demur.Recording(tmp_path / "local"), demur.Recording(tmp_path / "vllm"))


def test_what_vllm_cannot_record_is_refused_before_anything_is_written(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diffusion = demur.load("demur/tiny-diffusion", device="cpu")
    with pytest.raises(InputError, match="not of MaskedDiffusion"):
        demur.record(diffusion, PROMPTS, steps=8, out=tmp_path / "r", engine=VllmEngine())
    edited = demur.load("demur/tiny-ar", device="cpu", dtype="float32")
    next(iter(edited.network.parameters())).data += 1
    with pytest.raises(InputError, match="edited since they were loaded"):
        demur.record(edited, PROMPTS, steps=8, out=tmp_path / "r", engine=VllmEngine())
    assert not (tmp_path / "r").exists()
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    with pytest.raises(InputError, match="not of Model Runner V2"):
        VllmEngine()
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")
    monkeypatch.setenv("DEMUR_GUARD", "guards")
    with pytest.raises(InputError, match="DEMUR_GUARD is set"):
        VllmEngine()
