"""What demur does with a model, on a tiny checkpoint of every diffusion family: nothing is left out for one of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import demur
import toy
from demur.checks.resume import Killed, differences, dying
from demur.guards import DirectionGuard, load_guard, states_of
from demur.models import Model, decode_response, load
from demur.recording import Recording
from demur.report.viewer.page import write_viewer
from demur.samplers import Sampler
from demur.studies import compare_runs
from family_checkpoints import CHECKPOINTS

GREEN = {"ok", "stated"}
COUNT = 24
"""Prompts of each side."""


@pytest.fixture(params=CHECKPOINTS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(family: str, tmp_path: Path) -> Model:
    made = CHECKPOINTS[family]
    return load(made.write(tmp_path / "checkpoint"), device="cpu", **made.options)


@pytest.fixture
def sampler(family: str, model: Model) -> Sampler:
    made: Sampler = model.default_sampler(**CHECKPOINTS[family].sampler)
    return made


def anchors_of(harmless: Recording, harmful: Recording) -> demur.Anchors:
    """Anchors of a random model, which refuses nothing, as if it had refused what is harmful."""
    no, yes = np.zeros(len(harmless), dtype=bool), np.ones(len(harmful), dtype=bool)
    return demur.Anchors.fit(harmless, harmful, harmless_refused=no, harmful_refused=yes)


def test_every_row_of_the_check_is_green_or_says_why_it_is_not_run(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demur.checks.plan.PLANS", [(6, 4, 0.5)])
    made = CHECKPOINTS[family]
    found = demur.check(made.write(tmp_path / "checkpoint"), minutes=20, device="cpu", **made.options)
    outcomes = {row.name: row.outcome for row in found.rows}
    assert not [row for row in found.rows if row.outcome not in GREEN | {"not run"}], found
    not_run = {row.name: row.note for row in found.rows if row.outcome == "not run"}
    assert all(not_run.values()), found
    assert set(not_run) <= {"batch, rows that end", "batch, beyond the window", "official code"}, found
    assert {outcomes[name] for name in ("prompt", "states", "kill and resume")} == {"ok"}, found


def test_a_recording_in_batches_that_is_broken_off_is_the_one_that_single_prompts_give(
    model: Model, sampler: Sampler, tmp_path: Path
) -> None:
    prompts: list[Any] = [*toy.rows("anchors_harmless")[:5], {"id": "short", "token_ids": [9, 8]}]
    whole = demur.record(model, prompts, sampler, batch_size=2)
    with pytest.raises(Killed):
        demur.record(model, prompts, dying(sampler), batch_size=2, out=tmp_path / "run")
    assert not differences(demur.record(model, prompts, sampler, batch_size=2, out=tmp_path / "run"), whole)
    alone = demur.record(model, prompts, sampler, batch_size=1)
    assert abs(alone.phi - whole.phi).max() < 1e-5
    for row in range(len(prompts)):
        mine, theirs = alone.steps_tokens(row), whole.steps_tokens(row)
        assert np.array_equal(mine.predicted, theirs.predicted)
        assert np.array_equal(mine.is_committed, theirs.is_committed)


def test_recordings_have_anchors_a_guard_a_viewer_and_are_compared(
    model: Model, sampler: Sampler, tmp_path: Path
) -> None:
    sides = [toy.rows(f"anchors_{side}")[:COUNT] for side in ("harmless", "harmful")]
    harmless, harmful = (demur.record(model, side, sampler, batch_size=COUNT) for side in sides)
    attacks = demur.record(model, toy.rows("test_attacks")[:4], sampler, out=tmp_path / "run")
    anchors = anchors_of(harmless, harmful)
    assert np.isfinite(np.asarray(anchors.signal(attacks))).all()
    anchors.save(tmp_path / "run" / "anchors.safetensors")

    held = demur.record(model, toy.rows("test_harmless")[:COUNT], sampler, batch_size=COUNT)
    guard = DirectionGuard(0.9).fit(states_of(harmless), harmful=states_of(harmful), calibration=states_of(held))
    guard.save(tmp_path / "guard.safetensors")
    scores = load_guard(tmp_path / "guard.safetensors").score_samples(states_of(attacks))
    assert np.isfinite(scores).all() and np.array_equal(scores, guard.score_samples(states_of(attacks)))

    page = write_viewer(tmp_path / "run", tmp_path / "viewer.html")
    assert 10_000 < page.stat().st_size < 5_000_000

    left = sampler.from_left() or sampler
    demur.record(model, toy.rows("test_attacks")[:4], left, out=tmp_path / "left")
    few = [demur.record(model, side[:8], left) for side in sides]
    anchors_of(*few).save(tmp_path / "left" / "anchors.safetensors")
    found = compare_runs([tmp_path / "run", tmp_path / "left"])
    assert set(found.table["run"]) == set(found.runs)
    assert Recording(tmp_path / "left").provenance.sampler["name"] == type(sampler).__name__


def test_the_text_of_dream_layouts_ends_at_end_of_sequence_and_at_a_pad_of_its_own(tmp_path: Path) -> None:
    folders = {name: CHECKPOINTS[name].write(tmp_path / name) for name in ("dream", "diffucoder", "dream-coder")}
    dream, diffucoder, coder = (load(folder, device="cpu") for folder in folders.values())
    assert dream.eos_token_ids == coder.eos_token_ids
    assert set(diffucoder.eos_token_ids) == {*dream.eos_token_ids, 502}
    assert diffucoder.mask_token_id == coder.mask_token_id == 500
    for other in (diffucoder, coder):
        assert other.logits_shifted and other.default_sampler(8).describe() == dream.default_sampler(8).describe()
    text = "return 1"
    ids = diffucoder.tokenizer(text)["input_ids"] if diffucoder.tokenizer else []
    assert decode_response(diffucoder.tokenizer, [*ids, 502, *ids], diffucoder.eos_token_ids) == text
