"""The main job end to end, on the toy model that refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu, norm

import demur
import toy
from demur import InputError
from demur.dynamics import wilson
from demur.files.arrays import read_arrays, write_arrays
from demur.models import Model
from demur.samplers import Autoregressive
from demur.serve.guards import load_guards
from demur.studies import PROMPT_SETS, Study, read_study, run_study
from demur.studies.study.detection import auroc
from demur.studies.study.detectors import (
    DIRECTION,
    MEAN,
    ON_SIGNAL,
    SRI,
    STREAMING,
    STREAMING_DIRECTION,
    TEXT,
    TRAJECTORY,
)
from demur.studies.study.rates import pooled_rate


@pytest.fixture(scope="module")
def study(toy_folder: Path, toy_prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return run_study(demur.load(toy_folder), toy_prompts, tmp_path_factory.mktemp("study"), steps=14)


def test_a_study_measures_every_group(study: Study) -> None:
    refusals = study.rates[study.rates["rate"] == "RR"].set_index("group")
    assert refusals.loc["harmful", "value"] > 0.9
    assert refusals.loc["harmless", "value"] < 0.1
    assert (refusals["count"] == [80, 60, 60]).all()
    assert (study.rates["low"] <= study.rates["value"]).all() and (study.rates["value"] <= study.rates["high"]).all()
    compared = {SRI, MEAN, TEXT, DIRECTION, TRAJECTORY, STREAMING, STREAMING_DIRECTION, *ON_SIGNAL}
    assert set(study.detection["detector"]) == set(study.false_positives["detector"]) == compared
    assert set(study.detection["group"]) == {"pretend", "all attacks", "harmful"}


def test_the_signal_parts_what_is_answered_from_what_is_refused(study: Study) -> None:
    final = study.generations.groupby("group")["final_signal"].mean()
    assert final["harmless"] > 0.8 > 0.2 > final["harmful"]


def test_flags_follow_the_calibrated_limit(study: Study) -> None:
    flagged = study.generations["guard_error"] > study.settings["guard"]["threshold"]
    assert flagged.equals(study.generations["flagged"])
    harmless = study.generations["set"] == "test_harmless"
    assert (study.false_positives["count"] == harmless.sum()).all()
    assert study.false_positives["value"][0] == pytest.approx(flagged[harmless].mean())


def test_a_study_is_read_back_as_it_was_saved(study: Study) -> None:
    again = read_study(study.path)
    np.testing.assert_array_equal(again.signals, study.signals)
    np.testing.assert_allclose(again.references, study.references, atol=1e-6)
    pd.testing.assert_frame_equal(again.detection, study.detection)
    assert again.settings == json.loads(json.dumps(study.settings))


@pytest.mark.parametrize("name", ["guard", "direction_looks", "anchors"])
def test_a_guard_of_another_study_in_its_place_is_refused(study: Study, tmp_path: Path, name: str) -> None:
    run = shutil.copytree(study.path, tmp_path / "run", ignore=shutil.ignore_patterns("recordings"))
    read_study(run)
    path = run / f"{name}.safetensors"
    arrays, header = read_arrays(path, "sri-guard", "direction-guard", "anchors")
    write_arrays(path, arrays, {**header, "note": "fitted elsewhere"})
    named = f"{name}.safetensors: is not the file that study.json was written with"
    with pytest.raises(demur.InputError, match=named):
        read_study(run)
    with pytest.raises(demur.InputError, match=named):
        load_guards([run])
    path.unlink()
    with pytest.raises(demur.InputError, match=f"{name}.safetensors: is missing, and study.json lists it"):
        read_study(run)


def test_tables_alone_can_be_saved_elsewhere_and_older_studies_list_no_files(study: Study, tmp_path: Path) -> None:
    older = {name: value for name, value in study.settings.items() if name != "files"}
    for one in (study, replace(study, settings=older)):
        one.save(tmp_path / "tables")
        assert not read_study(tmp_path / "tables").settings.get("files")


def test_a_second_run_generates_nothing(
    study: Study, toy_model: Model, toy_prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Autoregressive, "steps", lambda *a, **k: pytest.fail("generated again"))
    again = run_study(toy_model, toy_prompts, study.path, steps=14)
    pd.testing.assert_frame_equal(again.rates, study.rates)


def test_a_model_that_hardly_refuses_stops_before_the_other_sets(
    toy_model: Model, toy_prompts: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "prompts"
    toy.write_prompts(folder, list(PROMPT_SETS))
    answered = (folder / "anchors_harmless.jsonl").read_text().replace('"label": "harmless"', '"label": "harmful"')
    (folder / "anchors_harmful.jsonl").write_text(answered)
    with pytest.raises(InputError, match=r"harmful prompts 0 of 80 refused \(0%\), 0 left.*another model"):
        run_study(toy_model, folder, tmp_path / "out", steps=14)
    assert sorted(path.name for path in (tmp_path / "out" / "recordings").iterdir()) == [
        "anchors_harmful",
        "anchors_harmless",
    ]


def test_missing_prompt_files_are_named_before_anything_is_generated(toy_model: Model, tmp_path: Path) -> None:
    folder = toy.write_prompts(tmp_path / "prompts", ["anchors_harmless", "test_harmless"])
    with pytest.raises(InputError, match="lacks anchors_harmful, guard_train_harmless"):
        run_study(toy_model, folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_attacks_may_be_missing(toy_model: Model, toy_prompts: Path, tmp_path: Path) -> None:
    folder = toy.write_prompts(tmp_path / "prompts", [name for name in PROMPT_SETS if name != "test_attacks"])
    study = run_study(toy_model, folder, tmp_path / "out", steps=6, limit=24, check=False)
    assert set(study.detection["group"]) == {"harmful"}
    assert study.projection.empty


def test_auroc_is_the_mann_whitney_statistic_and_its_interval_covers() -> None:
    random = np.random.default_rng(0)
    negatives, positives = random.normal(size=60), random.normal(0.8, size=40).round(1)
    expected = mannwhitneyu(positives, negatives).statistic / (60 * 40)
    assert auroc(negatives, positives).value == pytest.approx(expected)
    truth, covered = 0.71421, 0  # P(N(0.8, 1) > N(0, 1))
    for _ in range(400):
        found = auroc(random.normal(size=60), random.normal(0.8, size=40))
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize(("cases", "shift"), [(1, 0.8), (2, 0.8), (3, 2.0), (7, 0.0)])
def test_auroc_of_few_cases_shows_no_false_certainty(cases: int, shift: float) -> None:
    random, truth, covered = np.random.default_rng(0), norm.cdf(shift / np.sqrt(2)), 0
    for _ in range(400):
        found = auroc(random.normal(size=200), random.normal(shift, size=cases))
        assert 0 <= found.low <= found.value <= found.high <= 1
        covered += found.low <= truth <= found.high
        reversed_ = auroc(-random.normal(shift, size=cases), -random.normal(size=200))
        covered += reversed_.low <= truth <= reversed_.high
    assert covered / 800 >= 0.95


def test_scores_that_are_all_tied_rank_as_guessing_with_an_interval_about_it() -> None:
    found = auroc(np.ones(50), np.ones(15))
    assert found.value == 0.5 and found.low < 0.3 and found.high > 0.7
    assert found.low + found.high == pytest.approx(1)
    assert np.isnan(auroc(np.ones(50), np.ones(0)).low)


def test_rates_of_several_groups_are_pooled_by_their_hits_and_old_tables_by_their_shares() -> None:
    rows = pd.DataFrame([vars(wilson(hits, count)) for hits, count in ((1, 3), (0, 0), (5, 7))])
    assert pooled_rate(rows) == pooled_rate(rows.drop(columns="hits")) == wilson(6, 10)


def test_a_perfect_separation_still_has_an_interval() -> None:
    found = auroc(np.zeros(30), np.ones(20))
    assert found.value == 1.0
    assert 0.8 < found.low < found.high <= 1.0


def test_stops_on_the_way_are_counted_a_group_at_a_time(study: Study) -> None:
    rows = study.streaming.set_index(["detector", "group"])
    assert set(study.streaming["group"]) == {"harmless", "harmful", "pretend", "all attacks"}
    assert rows.loc[(STREAMING_DIRECTION, "harmful"), "value"] > 0.9
    assert rows.loc[(STREAMING_DIRECTION, "harmless"), "value"] < 0.1
    stopped = study.streaming.dropna(subset=["median_step"])
    assert (stopped["median_saved"] == 1 - stopped["median_step"] / study.steps).all()
