"""Calibration that says what it is worth: limits for every kind, and a warning where scores look otherwise."""

import copy
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import demur
from demur import InputError
from demur.bundled import bundled_prompts
from demur.defenses import GuardStopping, generate_guarded
from demur.guards import DirectionGuard, DriftWarning, DriftWatch, StreamingGuard, states_of
from demur.models import Model
from demur.prompts import read_prompts

PLACES, STEPS = (0.25, 0.5, 1.0), 12


class Setting:
    """The bundled model under the study's system prompt, and a streaming guard along a direction."""

    def __init__(self, folder: Path) -> None:
        self.model: Model = demur.load("demur/tiny-ar")
        files = {path.stem: path for path in bundled_prompts("demur/toy")}
        self.prompts = {name: [one.prompt for one in read_prompts(files[name])] for name in files}
        train, held_out, harmful = (
            states_of(self.record(self.prompts[name][:count]), PLACES)
            for name, count in (
                ("guard_train_harmless", 100),
                ("guard_calibration_harmless", 150),
                ("anchors_harmful", 40),
            )
        )
        self.direction = DirectionGuard(places=PLACES).fit(train, harmful=harmful, calibration=held_out)
        self.guard = StreamingGuard(0.02, side="high").fit(self.direction.place_errors(train))
        self.guard.calibrate(self.direction.place_errors(held_out))
        self.direction.save(folder / "direction.safetensors")

    def record(self, prompts: list, out: Path | None = None) -> demur.Recording:
        return demur.record(self.model, prompts, steps=STEPS, batch_size=64, out=out)


def _copy(guard: StreamingGuard) -> StreamingGuard:
    """The same guard, whose stream of scores begins anew."""
    return copy.copy(guard)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return Setting(tmp_path_factory.mktemp("drift"))


def under(model: Model, system: str, prompts: list[str]) -> list[dict]:
    """The prompts as token ids, which do not tell that the system prompt is another."""
    return [{"token_ids": model.encode(one, [{"role": "system", "content": system}])} for one in prompts]


OTHER = "answer in one word and never say more than that about any thing at all"


def test_another_system_prompt_is_warned_of_once_and_the_own_one_is_not(given: Setting) -> None:
    prompts = given.prompts["test_harmless"][:60]
    with warnings.catch_warnings():
        warnings.simplefilter("error", DriftWarning)
        generate_guarded(given.model, prompts, given.direction, _copy(given.guard), batch_size=64)
    guard = _copy(given.guard)
    with pytest.warns(DriftWarning, match="another system prompt.*another dtype or engine") as told:
        for part in (prompts, given.prompts["test_harmless"][60:]):
            generate_guarded(given.model, under(given.model, OTHER, part), given.direction, guard, batch_size=64)
    assert len([one for one in told if one.category is DriftWarning]) == 1


def test_transformers_generate_is_watched_too(given: Setting) -> None:
    guard = _copy(given.guard)
    rows = [one["token_ids"] for one in under(given.model, OTHER, given.prompts["test_harmless"][:60])]
    longest = max(map(len, rows))
    ids = torch.tensor([[given.model.pad_token_id] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    with pytest.warns(DriftWarning), GuardStopping(given.model.network, given.direction, guard) as stopping:
        given.model.network.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=STEPS, do_sample=False, stopping_criteria=[stopping]
        )


def test_guard_score_warns_of_harmless_prompts_that_look_otherwise(
    given: Setting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from demur.cli.guard import guard_score

    given.direction.save(tmp_path / "guard")
    prompts = given.prompts["test_harmless"][:60]
    given.record(prompts, tmp_path / "same")
    given.record(under(given.model, OTHER, prompts), tmp_path / "other")
    given.record([{**one, "label": "harmful"} for one in under(given.model, OTHER, prompts)], tmp_path / "harmful")
    with warnings.catch_warnings():
        warnings.simplefilter("error", DriftWarning)
        guard_score(str(tmp_path / "guard"), tmp_path / "same", tmp_path / "scores")
        guard_score(str(tmp_path / "guard"), tmp_path / "harmful", tmp_path / "scores")  # expected to look otherwise
    with pytest.warns(DriftWarning):
        guard_score(str(tmp_path / "guard"), tmp_path / "other", tmp_path / "scores")
    assert len(pd.read_parquet(tmp_path / "scores")) == 60


def calibrated(rng: np.random.Generator) -> StreamingGuard:
    harmless = rng.normal(size=(260, 4))
    return StreamingGuard(0.05).fit(harmless[:100], calibration=harmless[100:])


def test_an_endless_stream_of_the_same_scores_is_hardly_ever_warned_of() -> None:
    found = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(40):
            rng = np.random.default_rng(seed)
            guard = calibrated(rng)
            watch = DriftWatch(guard, alpha=0.05)
            found += watch.add(guard.errors(rng.normal(size=(1000, 4)))) is not None
    assert found <= 5  # at most 2 are expected; more than 5 have a probability below 2%


def test_a_shift_is_found_and_a_few_attacks_are_not() -> None:
    rng = np.random.default_rng(0)
    guard = calibrated(rng)
    mixed = rng.normal(size=(500, 4))
    mixed[::20] += 9
    assert DriftWatch(guard).add(guard.errors(mixed)) is None
    with pytest.warns(DriftWarning):
        drift = DriftWatch(guard).add(guard.errors(rng.normal(size=(200, 4)) * 1.8))
    assert drift is not None and drift.window == 50 and drift.seen <= 200 and drift.flagged > 5


def test_errors_of_the_calibration_are_kept_in_files_and_earlier_files_have_none(tmp_path: Path) -> None:
    guard = calibrated(np.random.default_rng(0))
    guard.save(tmp_path / "guard")
    loaded = StreamingGuard.load(tmp_path / "guard")
    np.testing.assert_array_equal(loaded.calibration_errors_, guard.calibration_errors_)
    loaded.calibration_errors_ = None
    with pytest.raises(InputError, match="calibrate it again"):
        DriftWatch(loaded)


@pytest.mark.parametrize("kind", ["streaming", "direction"])
def test_the_promise_is_kept_for_every_kind(kind: str, tmp_path: Path) -> None:
    alpha, rates = 0.05, {"calm": [], "wild": []}
    for seed in range(30):
        rng = np.random.default_rng(seed)
        kinds = np.repeat(["calm", "wild"], 100)
        scale = np.where(kinds == "wild", 2.0, 1.0)[:, None]
        sets = [rng.normal(size=(200, 6)) * scale for _ in range(3)]
        guard = StreamingGuard(alpha) if kind == "streaming" else DirectionGuard(1 - alpha, places=(1.0,))
        if isinstance(guard, StreamingGuard):
            guard.fit(sets[0]).calibrate(sets[1], kinds=kinds)
        else:
            guard.fit(np.concatenate([sets[0], sets[0] + 3]), np.repeat([0, 1], 200)).calibrate(sets[1], kinds=kinds)
        flagged = guard.predict(sets[2]) == -1
        for name, found in rates.items():
            found.append(flagged[kinds == name].mean())
    for found in rates.values():
        assert np.mean(found) < alpha + 3 * np.std(found) / np.sqrt(len(found))
    assert np.mean(rates["wild"]) > 0.02  # it is the wild kind that sets the limit
    guard.save(tmp_path / "guard")
    loaded = demur.guards.load(tmp_path / "guard")
    assert loaded.kinds_ == guard.kinds_ and set(loaded.kinds_) == {"calm", "wild"}
    assert json.loads(json.dumps(loaded.summary()["kinds"]))["wild"]["limit"] == loaded.threshold_
