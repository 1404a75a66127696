"""The streaming guard: its score, its bound on harmless generations, and the watch that follows them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta

from demur.errors import InputError, ProvenanceError
from demur.files.arrays import read_arrays, write_arrays
from demur.guards import StepsSaved, StreamingGuard
from demur.guards.calibration import conformal_threshold
from demur.provenance import Provenance
from demur.signal import Signal
from test_guard import harmless_signals

MADE = Provenance("toy", "f" * 64, {"name": "Autoregressive", "steps": 32, "seed": 0}, (24,))


def saturated_signals(count: int, seed: int) -> np.ndarray:
    """At 1 but for a dip in one of ten, and exactly constant over the first four and the last step."""
    sigma = np.minimum(1, 1.3 * harmless_signals(count, seed))
    sigma[:, :4] = sigma[:, -1] = 1
    return sigma


def falling_signals(count: int, seed: int) -> np.ndarray:
    """Harmless ones that fall from step 9 on."""
    return (harmless_signals(count, seed) - np.r_[np.zeros(8), np.linspace(0, 0.8, 24)]).clip(0, 1)


@pytest.fixture(scope="module")
def guard() -> StreamingGuard:
    return StreamingGuard(alpha=0.05).fit(harmless_signals(600, 0), calibration=harmless_signals(199, 1))


def features_of(sigma: np.ndarray) -> np.ndarray:
    """Value, mean and mean absolute change of one whole signal."""
    change = np.abs(np.diff(sigma, axis=1)).mean(axis=1) if sigma.shape[1] > 1 else np.zeros(len(sigma))
    return np.stack([sigma[:, -1], sigma.mean(axis=1), change], axis=1)


def test_the_score_of_a_step_is_the_furthest_feature_counted_in_tails(guard: StreamingGuard) -> None:
    train, sigma = harmless_signals(600, 0).astype(np.float64), falling_signals(20, 2).astype(np.float64)
    scores = guard.step_scores(sigma)
    for t in (1, 2, 7, 32):
        usual, found = features_of(train[:, :t]), features_of(sigma[:, :t])
        low, centre, high = np.quantile(usual, [0.025, 0.5, 0.975], axis=0)
        above = (found - centre) / np.maximum(high - centre, 0.01)
        below = (centre - found) / np.maximum(centre - low, 0.01)
        below[:, 2] = 0  # a signal cannot move too little
        np.testing.assert_allclose(scores[:, t - 1], np.maximum(above, below).max(axis=1), rtol=1e-9)


def test_a_score_knows_nothing_of_later_steps(guard: StreamingGuard) -> None:
    sigma = harmless_signals(10, 3)
    other = sigma.copy()
    other[:, 12:] = np.random.default_rng(0).random((10, 20))
    np.testing.assert_array_equal(guard.step_scores(sigma)[:, :12], guard.step_scores(other)[:, :12])
    assert (guard.step_scores(sigma)[:, 12:] != guard.step_scores(other)[:, 12:]).all()


def test_harmless_scores_are_on_one_scale_at_every_step(guard: StreamingGuard) -> None:
    scores = guard.step_scores(harmless_signals(2000, 4))
    tails = np.quantile(scores, 0.95, axis=0)
    assert (tails > 0.9).all() and (tails < 1.6).all()


def test_the_signs_are_those_of_an_outlier_detector_of_the_highest_score(guard: StreamingGuard) -> None:
    sigma = np.concatenate([harmless_signals(100, 5), falling_signals(20, 6)])
    highest = guard.step_scores(sigma).max(axis=1)
    np.testing.assert_array_equal(guard.score_samples(sigma), -highest)
    np.testing.assert_array_equal(guard.decision_function(sigma), guard.threshold_ - highest)
    np.testing.assert_array_equal(guard.predict(sigma) == -1, guard.stops(sigma) > 0)


def test_a_falling_signal_is_stopped_after_it_begins_to_fall_and_before_its_end(guard: StreamingGuard) -> None:
    stops = guard.stops(falling_signals(200, 7))
    assert (stops > 0).mean() > 0.95 and ((stops > 8) & (stops < 24)).mean() > 0.6


def test_the_steps_saved_are_those_after_the_stop(guard: StreamingGuard) -> None:
    sigma = falling_signals(50, 7)
    stops = guard.stops(sigma)
    saved = sum(32 - int(stop) for stop in stops if stop)
    assert guard.steps_saved(sigma) == StepsSaved(50, int((stops > 0).sum()), 50 * 32, saved)
    assert 0 < saved < 50 * 24


@pytest.mark.parametrize("batch", [1, 3, 40])
def test_a_watch_agrees_to_the_last_bit_whatever_its_batch(guard: StreamingGuard, batch: int) -> None:
    sigma = np.concatenate([harmless_signals(20, 8), falling_signals(20, 9)])
    scores, stops = guard.step_scores(sigma), guard.stops(sigma)
    for start in range(0, 40 - batch + 1, batch):
        rows = slice(start, start + batch)
        watch = guard.watch(len(sigma[rows]))
        for step in range(32):
            stopped = watch.update(sigma[rows, step])
            np.testing.assert_array_equal(watch.scores, scores[rows, step])
            np.testing.assert_array_equal(stopped, (stops[rows] > 0) & (stops[rows] <= step + 1))
        np.testing.assert_array_equal(watch.stopped_at, stops[rows])


def test_a_watch_refuses_other_rows_numbers_and_more_steps(guard: StreamingGuard) -> None:
    watch = guard.watch(2)
    with pytest.raises(InputError, match=r"shape \(3,\) at step 1; expected one for each of the 2 generations"):
        watch.update(np.ones(3))
    for _ in range(32):
        watch.update([0.9, 0.9])
    with pytest.raises(InputError, match="step 33 of a signal; the guard was fitted on 32 steps"):
        watch.update([0.9, 0.9])


@pytest.mark.parametrize("signals", [harmless_signals, saturated_signals])
def test_harmless_generations_are_stopped_as_often_as_promised_and_hardly_less(signals: Any) -> None:
    """Over 120 draws of a calibration set of 99, each with 100 fresh signals: the mean rate is 5 / 100."""
    guard = StreamingGuard(alpha=0.05).fit(signals(300, 0))
    drawn = signals(120 * 199, 1).reshape(120, 199, 32)
    rates = np.array([(guard.calibrate(draw[:99]).stops(draw[99:]) > 0).mean() for draw in drawn])
    error = np.sqrt(beta(5, 95).var() / 120 + 0.05 * 0.95 / 12_000)
    assert abs(rates.mean() - 0.05) < 3.5 * error


def test_the_rate_of_one_calibration_follows_the_beta_distribution() -> None:
    # Only ranks matter, so uniform scores do: the true rate of a threshold is then 1 - threshold.
    draws = np.random.default_rng(0).random((4000, 199))
    found = [conformal_threshold(draw, 0.05) for draw in draws]
    rates = 1 - np.array([threshold for threshold, _, _ in found])
    assert rates.mean() == pytest.approx(10 / 200, abs=0.001)
    assert rates.std() == pytest.approx(beta(10, 190).std(), rel=0.05)
    _, low, high = found[0]
    assert (low, high) == pytest.approx(tuple(beta(10, 190).ppf([0.025, 0.975])))
    assert 0.94 < ((low <= rates) & (rates <= high)).mean() < 0.96


@pytest.mark.parametrize(("count", "alpha", "place"), [(99, 0.01, 99), (199, 0.01, 198), (99, 0.29, 71), (9, 0.1, 9)])
def test_the_threshold_is_the_order_statistic_of_split_conformal(count: int, alpha: float, place: int) -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
    assert conformal_threshold(scores, alpha)[0] == place


@pytest.mark.parametrize(("alpha", "needed"), [(0.01, 99), (0.05, 19), (0.3, 3), (0.001, 999)])
def test_too_few_held_out_signals_are_refused_with_the_number_needed(alpha: float, needed: int) -> None:
    guard = StreamingGuard(alpha=alpha).fit(harmless_signals(100, 0))
    with pytest.raises(
        InputError, match=rf"{needed - 1} signals to calibrate on; alpha={alpha} needs at least {needed}\."
    ):
        guard.calibrate(harmless_signals(needed - 1, 1))
    assert not guard.calibrated_
    assert guard.calibrate(harmless_signals(needed, 1)).n_calibration_ == needed


def test_calibration_is_that_of_the_highest_scores_and_is_forgotten_by_fitting_again(guard: StreamingGuard) -> None:
    expected = conformal_threshold(guard.errors(harmless_signals(199, 1)), 0.05)
    assert (guard.threshold_, guard.false_positive_low_, guard.false_positive_high_) == expected
    assert guard.calibrated_ and guard.n_calibration_ == 199 and guard.offset_ == -guard.threshold_
    again = StreamingGuard(alpha=0.05).fit(harmless_signals(100, 0), calibration=harmless_signals(19, 1))
    again.fit(harmless_signals(100, 0))
    assert (again.calibrated_, again.n_calibration_, again.false_positive_high_) == (False, 0, 1.0)
    assert again.threshold_ == np.quantile(again.errors(harmless_signals(100, 0)), 0.95)


def test_steps_without_any_movement_do_not_blow_up() -> None:
    for train in (saturated_signals(300, 0), np.ones((50, 32), dtype=np.float32)):
        guard = StreamingGuard(alpha=0.1).fit(train, calibration=train[:40])
        scores = guard.step_scores(np.ones((1, 32)) - 1e-3)
        assert (guard.step_scores(train) < 100).all() and scores[0, :4] == pytest.approx([0.1] * 4)
        assert guard.stops(np.r_[np.ones(10), np.full(22, 0.2)][None]).tolist() == [11]


@pytest.mark.parametrize(
    ("name", "value"), [("alpha", 0.0), ("alpha", 1.0), ("least_tail", 0.0), ("least_tail", np.inf)]
)
def test_a_parameter_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} is {value}"):
        StreamingGuard(**{name: value}).fit(harmless_signals(50, 0))


def test_signals_of_another_model_are_refused_by_everything() -> None:
    sigma = harmless_signals(100, 0)
    guard = StreamingGuard(alpha=0.1).fit(Signal(sigma, MADE), calibration=sigma)
    other = Signal(sigma, replace(MADE, fingerprint="e" * 64))
    for use in (guard.errors, guard.predict, guard.calibrate, guard.step_scores, guard.stops, guard.steps_saved):
        with pytest.raises(ProvenanceError, match="the guard and the signal do not belong together"):
            use(other)
    with pytest.raises(InputError, match="31 features, but StreamingGuard is expecting 32"):
        guard.stops(sigma[:, :31])


def test_a_saved_guard_comes_back_as_it_was(tmp_path: Path) -> None:
    path, sigma = tmp_path / "g.safetensors", falling_signals(30, 5)
    guard = StreamingGuard(alpha=0.05, least_tail=0.02).fit(Signal(harmless_signals(200, 0), MADE))
    guard.calibrate(harmless_signals(40, 1)).save(path)
    loaded = StreamingGuard.load(path)
    np.testing.assert_array_equal(loaded.step_scores(sigma), guard.step_scores(sigma))
    np.testing.assert_array_equal(loaded.stops(sigma), guard.stops(sigma))
    assert loaded.get_params() == guard.get_params() and loaded.provenance_ == MADE
    assert (loaded.n_calibration_, loaded.calibrated_, loaded.n_features_in_) == (40, True, 32)
    arrays, header = read_arrays(path, "streaming-guard")
    write_arrays(path, {**arrays, "centre": arrays["centre"][:5, :2]}, header)
    with pytest.raises(InputError, match=r"g\.safetensors: its header and arrays do not fit"):
        StreamingGuard.load(path)


def test_on_the_high_side_low_values_pass() -> None:
    rng = np.random.default_rng(0)
    harmless = rng.normal(size=(600, 12))
    guard = StreamingGuard(0.05, side="high").fit(harmless[:300], calibration=harmless[300:])
    low, high = rng.normal(-6, 1, (50, 12)), rng.normal(6, 1, (50, 12))
    assert (guard.stops(low) == 0).all() and (guard.stops(high) == 1).all()
    assert (StreamingGuard(0.05).fit(harmless[:300], calibration=harmless[300:]).stops(low) == 1).all()
    with pytest.raises(InputError, match="side is 'left'"):
        StreamingGuard(side="left").fit(harmless)
