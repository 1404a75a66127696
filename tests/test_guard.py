"""SRI Guard: scikit-learn's contract, its threshold and what it is worth, files, provenance."""

import doctest
import time
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

import demur
from demur.errors import InputError, ProvenanceError
from demur.files.arrays import read_arrays, write_arrays
from demur.guards import DirectionGuard, SRIGuard, StreamingGuard
from demur.guards import sri as sri_guard
from demur.guards.calibration import false_positive_interval
from demur.provenance import Provenance
from demur.signal import Signal

MADE = Provenance("toy", "f" * 64, {"name": "Autoregressive", "steps": 32, "seed": 0}, (24,))


def harmless_signals(count: int, seed: int, steps: int = 32) -> np.ndarray:
    """Smooth, high, a little noisy, with a dip in three of ten."""
    rng, t = np.random.default_rng(seed), np.linspace(0, 1, steps)
    level, slope = 0.85 + 0.08 * rng.uniform(-1, 1, (count, 1)), 0.2 * rng.uniform(-1, 1, (count, 1))
    dips = rng.uniform(0, 0.5, (count, 1)) * np.exp(-(((t - rng.random((count, 1))) / 0.08) ** 2))
    sigma = level + slope * (t - 0.5) - dips * (rng.random((count, 1)) < 0.3) + 0.02 * rng.normal(size=(count, steps))
    return sigma.clip(0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def guard() -> SRIGuard:
    return SRIGuard(random_state=0, max_iter=60).fit(harmless_signals(600, 0), calibration=harmless_signals(200, 1))


def test_the_autoencoder_has_the_papers_shape(guard: SRIGuard) -> None:
    assert [weights.shape for weights in guard.coefs_] == [(32, 32), (32, 8), (8, 32), (32, 32)]
    assert sum(a.size for a in guard.coefs_ + guard.intercepts_) == 2664


def test_errors_are_the_squared_distance_to_a_reconstruction_by_relu_layers(guard: SRIGuard) -> None:
    sigma = harmless_signals(50, 2).astype(np.float64)
    hidden = sigma
    for i, (weights, biases) in enumerate(zip(guard.coefs_, guard.intercepts_, strict=True)):
        hidden = hidden @ weights + biases
        hidden = np.maximum(hidden, 0) if i < 3 else hidden
    expected = ((sigma - hidden) ** 2).sum(axis=1)
    np.testing.assert_allclose(guard.errors(sigma), expected, rtol=1e-10)
    np.testing.assert_allclose(guard.errors(sigma.astype(np.float32)), expected, rtol=1e-3)


def test_the_default_training_reconstructs_harmless_signals_in_seconds() -> None:
    train, held_out = harmless_signals(1200, 0), harmless_signals(400, 1)
    started = time.process_time()
    guard = SRIGuard(random_state=0).fit(train)
    assert time.process_time() - started < 15  # 3 s on an idle core
    assert guard.errors(held_out).sum() < 0.3 * ((held_out - train.mean(axis=0)) ** 2).sum()


def test_signs_are_those_of_an_outlier_detector(guard: SRIGuard) -> None:
    sigma = np.concatenate([harmless_signals(100, 3), np.linspace(0.9, 0.05, 32, dtype=np.float32)[None]])
    errors = guard.errors(sigma)
    np.testing.assert_array_equal(guard.score_samples(sigma), -errors)
    np.testing.assert_array_equal(guard.decision_function(sigma), -errors - guard.offset_)
    np.testing.assert_array_equal(guard.predict(sigma), np.where(errors > guard.threshold_, -1, 1))
    assert guard.offset_ == -guard.threshold_ and guard.predict(sigma)[-1] == -1


def test_one_state_gives_one_guard_and_another_another(guard: SRIGuard) -> None:
    again, other = (
        SRIGuard(random_state=state, max_iter=60).fit(harmless_signals(600, 0), calibration=harmless_signals(200, 1))
        for state in (0, 1)
    )
    sigma = harmless_signals(20, 4)
    np.testing.assert_array_equal(again.errors(sigma), guard.errors(sigma))
    assert not np.array_equal(other.errors(sigma), guard.errors(sigma))


def test_without_calibration_the_threshold_is_that_of_the_training_errors() -> None:
    train = harmless_signals(300, 0)
    guard = SRIGuard(random_state=0, max_iter=20, quantile=0.9).fit(train)
    assert not guard.calibrated_ and guard.n_calibration_ == 0
    assert (guard.false_positive_low_, guard.false_positive_high_) == (0, 1)
    assert guard.threshold_ == pytest.approx(float(np.quantile(guard.errors(train), 0.9)))


def test_calibration_sets_the_quantile_of_held_out_errors(guard: SRIGuard) -> None:
    assert guard.calibrated_ and guard.n_calibration_ == 200
    assert guard.threshold_ == float(np.quantile(guard.errors(harmless_signals(200, 1)), 0.99))
    assert 0 < guard.false_positive_low_ < 0.01 < guard.false_positive_high_ < 0.05


def test_fitting_again_forgets_the_calibration() -> None:
    guard = SRIGuard(random_state=0, max_iter=2, quantile=0.9)
    guard.fit(harmless_signals(100, 0), calibration=harmless_signals(100, 1)).fit(harmless_signals(100, 0))
    assert not guard.calibrated_ and guard.n_calibration_ == 0


def test_fewer_than_twenty_held_out_signals_are_refused_with_what_they_support(guard: SRIGuard) -> None:
    threshold = guard.threshold_
    with pytest.raises(InputError, match=r"19 signals .* at least 20.* better 100.* 1/\(n \+ 1\) = 5\.00% at best"):
        guard.calibrate(harmless_signals(19, 1))
    assert guard.threshold_ == threshold and guard.calibrated_


@pytest.mark.parametrize(("count", "warned"), [(20, True), (99, True), (100, False)])
def test_a_quantile_finer_than_the_sample_is_warned_of(count: int, warned: bool) -> None:
    guard = SRIGuard(random_state=0, max_iter=2).fit(harmless_signals(100, 0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        guard.calibrate(harmless_signals(count, 1))
    assert [f"1/(n + 1) = {1 / (count + 1):.2%}" in str(w.message) for w in caught] == [True] * warned


def test_the_interval_is_that_of_the_order_statistic_where_the_quantile_is_one() -> None:
    # The 0.9 quantile of 21 numbers is the 19th smallest, above which a share Beta(3, 19) lies.
    expected = beta(3, 19).ppf([0.025, 0.975])
    assert false_positive_interval(21, 0.9) == pytest.approx(tuple(expected), rel=1e-9)


@pytest.mark.parametrize(("count", "quantile"), [(20, 0.9), (100, 0.99), (200, 0.99), (200, 0.95)])
def test_the_interval_holds_the_true_false_positive_rate_in_95_of_100_draws(count: int, quantile: float) -> None:
    # Errors are uniform without loss of generality: only their ranks matter. The true rate is then 1 - threshold.
    errors = np.random.default_rng(0).random((20_000, count))
    true_rate = 1 - np.quantile(errors, quantile, axis=1)
    low, high = false_positive_interval(count, quantile)
    held = float(((low <= true_rate) & (true_rate <= high)).mean())
    assert 0.948 < held < 0.99


def test_the_interval_of_a_guard_holds_its_rate_on_fresh_signals(guard: SRIGuard) -> None:
    flagged = float((guard.predict(harmless_signals(20_000, 9)) == -1).mean())
    assert guard.false_positive_low_ <= flagged <= guard.false_positive_high_


def test_another_number_of_steps_is_refused(guard: SRIGuard) -> None:
    with pytest.raises(InputError, match="31 features, but SRIGuard is expecting 32"):
        guard.predict(harmless_signals(3, 0, steps=31))


def test_signals_that_are_not_finite_are_refused(guard: SRIGuard) -> None:
    sigma = harmless_signals(3, 0)
    sigma[1, 1] = np.nan
    with pytest.raises(InputError, match="NaN"):
        guard.errors(sigma)


@pytest.mark.parametrize(
    "parameters", [{"quantile": 0.0}, {"quantile": 1.0}, {"max_iter": 0}, {"batch_size": 0}, {"n_init": 0}]
)
def test_a_parameter_out_of_range_is_named(parameters: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(parameters))):
        SRIGuard(**parameters).fit(harmless_signals(50, 0))


def test_a_signal_of_one_step_can_be_guarded() -> None:
    guard = SRIGuard(random_state=0, max_iter=30).fit(harmless_signals(100, 0)[:, :1])
    assert guard.errors(harmless_signals(5, 1)[:, :1]).shape == (5,)


def test_a_guard_refuses_signals_of_another_model_sampler_or_layer() -> None:
    sigma = harmless_signals(100, 0)
    guard = SRIGuard(random_state=0, max_iter=2, quantile=0.9).fit(Signal(sigma, MADE))
    assert guard.provenance_ == MADE
    assert guard.predict(Signal(sigma, replace(MADE, prompts="others", model="label"))).shape == (100,)
    assert guard.predict(sigma).shape == guard.predict(Signal(sigma)).shape == (100,)
    for changes in ({"fingerprint": "e" * 64}, {"layers": (12,)}, {"sampler": {**MADE.sampler, "steps": 64}}):
        other = Signal(sigma, replace(MADE, **changes))
        for use in (guard.errors, guard.predict, guard.calibrate, guard.decision_function):
            with pytest.raises(ProvenanceError, match="the guard and the signal do not belong together"):
                use(other)
        with pytest.raises(ProvenanceError):
            SRIGuard(max_iter=1).fit(Signal(sigma, MADE), calibration=other)


def test_a_saved_guard_comes_back_as_it_was(guard: SRIGuard, tmp_path: Path) -> None:
    sigma = harmless_signals(30, 5)
    made = SRIGuard(random_state=3, max_iter=5, quantile=0.9).fit(Signal(harmless_signals(100, 0), MADE))
    for saved in (guard, made):
        saved.save(tmp_path / "g.safetensors")
        loaded = SRIGuard.load(tmp_path / "g.safetensors")
        np.testing.assert_array_equal(loaded.errors(sigma), saved.errors(sigma))
        np.testing.assert_array_equal(loaded.predict(sigma), saved.predict(sigma))
        assert loaded.get_params() == saved.get_params() and loaded.provenance_ == saved.provenance_
        assert {k: v for k, v in vars(loaded).items() if np.isscalar(v)} == {
            k: v for k, v in vars(saved).items() if np.isscalar(v)
        }


def test_a_guard_fitted_on_named_steps_remembers_them(tmp_path: Path) -> None:
    frame = pd.DataFrame(harmless_signals(50, 0)).rename(columns=lambda step: f"step {step + 1}")
    SRIGuard(max_iter=1, random_state=np.random.RandomState(0)).fit(frame).save(tmp_path / "g.safetensors")
    loaded = SRIGuard.load(tmp_path / "g.safetensors")
    assert list(loaded.feature_names_in_) == list(frame.columns) and loaded.random_state is None
    with pytest.raises(InputError, match="feature names"):
        loaded.predict(frame[frame.columns[::-1]])


def test_a_guard_file_whose_parts_do_not_fit_is_named(guard: SRIGuard, tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    guard.save(path)
    arrays, header = read_arrays(path, "sri-guard")
    for changed, about in (
        ({**arrays, "coefs.1": arrays["coefs.2"]}, header),
        ({name: array for name, array in arrays.items() if name != "coefs.3"}, header),
        (arrays, {**header, "parameters": {"contamination": 0.1}}),
        (arrays, {**header, "fitted": {}}),
    ):
        write_arrays(path, changed, about)
        with pytest.raises(InputError, match=r"g\.safetensors: its header and arrays do not fit"):
            SRIGuard.load(path)


def test_anchors_are_no_guard(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.safetensors", {"x": np.zeros(1)}, {"kind": "anchors"})
    with pytest.raises(InputError, match="holds 'anchors'; expected 'sri-guard'"):
        SRIGuard.load(tmp_path / "a.safetensors")


def test_the_example_in_the_docstring_runs() -> None:
    result = doctest.testmod(sri_guard)
    assert result.attempted > 3 and result.failed == 0


def test_a_guard_refuses_signals_of_other_anchors_but_not_of_another_recording() -> None:
    random = np.random.default_rng(0)
    made = Provenance("m", "f", {"name": "Autoregressive", "steps": 4}, (2,), anchors="one")
    guard = SRIGuard(max_iter=5, random_state=0).fit(Signal(random.random((40, 4)), made))
    guard.predict(Signal(random.random((3, 4)), replace(made, prompts="others", count=3)))
    with pytest.raises(ProvenanceError, match="anchors one against two"):
        guard.predict(Signal(random.random((3, 4)), replace(made, anchors="two")))


def test_held_out_signals_in_the_place_of_y_are_refused_and_labels_are_not() -> None:
    train, held_out = np.random.default_rng(0).random((2, 60, 4))
    quick = SRIGuard(max_iter=1, n_init=1, random_state=0)
    for wrong in (held_out, held_out.tolist(), Signal(held_out), [[1.0], [1.0, 2.0]]):
        with pytest.raises(InputError, match=r"y, is ignored and holds signals; give held-out ones as calibration="):
            quick.fit(train, wrong)
        with pytest.raises(InputError, match="give held-out ones as calibration="):
            DirectionGuard().fit(train, wrong, harmful=held_out)
    quick.fit(train, np.ones(60))


def test_a_guard_that_was_never_calibrated_says_so_once() -> None:
    train, held_out = np.random.default_rng(0).random((2, 60, 4))
    guard = SRIGuard(quantile=0.9, max_iter=1, n_init=1, random_state=0).fit(train)
    with pytest.warns(UserWarning, match="SRIGuard was not calibrated"):
        guard.predict(train)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard.predict(train)
        guard.fit(train, calibration=held_out).predict(train)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, 99, np.nan, "0.99", None, True])
def test_a_share_out_of_range_is_refused_by_its_name(share: Any) -> None:
    train = np.random.default_rng(0).random((30, 4))
    for guard, name in ((SRIGuard(quantile=share), "quantile"), (StreamingGuard(alpha=share), "alpha")):
        with pytest.raises(InputError, match=f"{name} is .*; expected a number between 0 and 1"):
            guard.fit(train)


def test_a_recording_or_a_path_is_refused_with_the_mend() -> None:
    train = np.random.default_rng(0).random((30, 4))
    guard = SRIGuard(quantile=0.9, max_iter=1, n_init=1, random_state=0).fit(train)
    recording = SimpleNamespace(phi_batches=list)
    for use in (guard.predict, guard.errors, guard.calibrate, guard.fit):
        with pytest.raises(InputError, match=r"a recording holds states and no signal; give anchors\.signal"):
            use(recording)
        with pytest.raises(InputError, match="runs/a is a path; read it first"):
            use("runs/a")


def test_every_guard_has_one_default_for_the_share_that_passes() -> None:
    guards = (SRIGuard(), DirectionGuard(), demur.guards.DetectorGuard(), demur.guards.TrajectoryGuard())
    assert {guard.quantile for guard in guards} == {0.99} and StreamingGuard().alpha == 0.01
