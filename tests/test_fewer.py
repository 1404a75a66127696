"""Guards of very large prompt sets are fitted to some of the prompts, and states of no more are held."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import demur
from demur.recording import folder as files
from demur.studies import run_study
from demur.studies.study import fewer as rule
from demur.studies.study.directions import CALIBRATION, TRAIN
from demur.studies.study.fewer import few, fewer


def test_few_prompts_are_all_taken_and_many_are_drawn_alike_every_time() -> None:
    np.testing.assert_array_equal(fewer(7, 7), np.arange(7))
    drawn = fewer(100_000, 500)
    np.testing.assert_array_equal(drawn, fewer(100_000, 500))
    assert len(np.unique(drawn)) == 500 and (np.diff(drawn) > 0).all()
    halves = [(drawn < 50_000).sum(), (drawn % 2 == 0).sum()]
    assert all(200 < half < 300 for half in halves)
    values = np.arange(20.0).reshape(10, 2)
    assert few(values) is values


@pytest.fixture(scope="module")
def model(toy_folder: Path) -> demur.Model:
    return demur.load(toy_folder, device="cpu")


def test_a_study_of_many_prompts_fits_to_some_and_scores_all(
    model: demur.Model, toy_prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, reads = files.read_shard_arrays, Counter[str]()

    def counting(folder: Path, number: int, mark: files.ShardMark | None = None) -> files.Arrays:
        reads[folder.name] += 1
        return read(folder, number, mark)

    whole = run_study(model, toy_prompts, tmp_path / "s", steps=8, check=False)
    states = [path.parent.parent.name for path in (tmp_path / "s").glob("recordings/*/derived/states.*")]
    assert sorted(states) == [CALIBRATION, TRAIN]  # of no other set are states held or kept
    monkeypatch.setattr(rule, "FIT_MOST", 30)
    monkeypatch.setattr(files, "read_shard_arrays", counting)
    found = run_study(model, toy_prompts, tmp_path / "s", steps=8, check=False)
    assert found.scores.shape == whole.scores.shape and not found.scores.isna().any(axis=None)
    assert found.settings["guard"]["n_calibration"] == whole.settings["guard"]["n_calibration"]
    assert not np.allclose(found.scores["Direction Guard"], whole.scores["Direction Guard"])
    np.testing.assert_array_equal(found.signals, whole.signals)
    assert found.made is not None and found.made.guards["direction_guard.safetensors"].n_calibration_ == 30
    assert reads[TRAIN] >= reads["test_harmless"] > 0
