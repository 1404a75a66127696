"""Detectors: each against scikit-learn's own scores, on signals that hardly move, and through a file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import OneClassSVM

from demur.errors import InputError, ProvenanceError
from demur.files.arrays import read_arrays, write_arrays
from demur.guards import DetectorGuard
from demur.guards.outlier.detectors import DETECTORS, learn_detector, location_and_scale
from demur.provenance import Provenance
from demur.signal import Signal
from test_guard import harmless_signals
from test_streaming_guard import falling_signals, saturated_signals

MADE = Provenance("toy", "f" * 64, {"name": "Autoregressive", "steps": 32, "seed": 0}, (24,))


def scikit_learns(name: str, train: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """The same error from scikit-learn's own objects, over columns on one scale."""
    if name == "isolation-forest":
        forest = IsolationForest(n_estimators=200, max_samples=256, random_state=seed).fit(train)
        return lambda x: -forest.score_samples(x)
    if name == "one-class-svm":
        svm = OneClassSVM(nu=0.1).fit(train)
        return lambda x: svm.dual_coef_.sum() - svm.score_samples(x)
    if name == "neighbours":
        search = NearestNeighbors(n_neighbors=5).fit(train)
        return lambda x: search.kneighbors(x)[0].mean(axis=1)
    pca = PCA(8).fit(train)
    return lambda x: ((x - pca.inverse_transform(pca.transform(x))) ** 2).sum(axis=1)


@pytest.mark.parametrize("name", sorted(set(DETECTORS) - {"mahalanobis"}))
def test_errors_are_those_of_scikit_learn(name: str) -> None:
    train, sigma = harmless_signals(400, 0).astype(np.float64), falling_signals(50, 1)
    centre, scale = location_and_scale(train)
    seed = int(np.random.RandomState(7).randint(2**31 - 1))
    expected = scikit_learns(name, (train - centre) / scale, seed)((sigma - centre) / scale)
    guard = DetectorGuard(name, random_state=7).fit(train)
    np.testing.assert_allclose(guard.errors(sigma), expected, rtol=1e-6, atol=1e-9)


def test_with_many_signals_the_distance_is_that_of_the_empirical_covariance() -> None:
    rng = np.random.default_rng(0)
    mixing = np.eye(6) + 0.4 * rng.normal(size=(6, 6))
    train, fresh = rng.normal(size=(20_000, 6)) @ mixing, rng.normal(size=(50, 6)) @ mixing
    expected = EmpiricalCovariance().fit(train).mahalanobis(fresh)
    np.testing.assert_allclose(DetectorGuard("mahalanobis").fit(train).errors(fresh), expected, rtol=0.02)


@pytest.mark.parametrize("name", DETECTORS)
def test_calibrated_on_harmless_signals_it_flags_few_of_them_and_most_strange_ones(name: str) -> None:
    guard = DetectorGuard(name, quantile=0.95, random_state=0)
    guard.fit(harmless_signals(400, 0), calibration=harmless_signals(200, 1))
    flagged = float((guard.predict(harmless_signals(1000, 2)) == -1).mean())
    assert guard.false_positive_low_ <= flagged <= guard.false_positive_high_
    strange = falling_signals(100, 3) + 0.1 * np.random.default_rng(0).normal(size=(100, 32))
    assert (guard.predict(strange) == -1).mean() > 0.6


@pytest.mark.parametrize("name", DETECTORS)
def test_steps_without_any_movement_do_not_blow_up(name: str) -> None:
    sigma = np.ones((3, 32))
    sigma[1, 2] -= 1e-3  # a step that is exactly constant in training
    sigma[2, 10:] = 0.2
    guard = DetectorGuard(name, random_state=0).fit(saturated_signals(300, 0))
    same, nearly, fallen = guard.errors(sigma)
    assert np.isfinite([same, nearly, fallen]).all() and fallen > guard.threshold_
    assert guard.predict(sigma).tolist() == [1, 1, -1]
    constant = DetectorGuard(name, random_state=0).fit(np.ones((50, 32)))
    assert np.isfinite(constant.errors(sigma)).all() and constant.predict(sigma)[0] == 1


def test_scales_are_robust_and_shrunk_towards_the_mean_variance() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(5, 2, size=(5000, 4))
    values[:50, 0] += 1000  # a hundredth far away, which also makes the mean variance large
    values[:, 3] = 1
    centre, scale = location_and_scale(values)
    assert centre == pytest.approx([5, 5, 5, 1], abs=0.15)
    shrunk = 0.1 * values.var(axis=0).mean()
    assert scale**2 == pytest.approx([0.9 * 4 + shrunk] * 3 + [shrunk], rel=0.05)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_saved_guard_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    path, sigma = tmp_path / "g.safetensors", np.concatenate([harmless_signals(30, 5), falling_signals(30, 6)])
    guard = DetectorGuard(name, quantile=0.9, random_state=3).fit(Signal(harmless_signals(100, 0), MADE))
    guard.calibrate(harmless_signals(50, 1)).save(path)
    loaded = DetectorGuard.load(path)
    np.testing.assert_array_equal(loaded.errors(sigma), guard.errors(sigma))
    np.testing.assert_array_equal(loaded.predict(sigma), guard.predict(sigma))
    assert loaded.get_params() == guard.get_params() and loaded.provenance_ == MADE
    assert (loaded.threshold_, loaded.n_calibration_) == (guard.threshold_, 50)


def test_a_file_of_another_detector_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    DetectorGuard("pca").fit(harmless_signals(100, 0)).save(path)
    arrays, header = read_arrays(path, "detector-guard")
    write_arrays(path, arrays, {**header, "parameters": {**header["parameters"], "detector": "neighbours"}})
    with pytest.raises(InputError, match=r"g\.safetensors: its header and arrays do not fit"):
        DetectorGuard.load(path)


def test_an_unknown_detector_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match="detector is 'lof'; expected one of mahalanobis, pca, neighbours"):
        DetectorGuard("lof").fit(harmless_signals(50, 0))


def test_one_state_gives_one_forest_and_another_another() -> None:
    first, again, other = (learn_detector("isolation-forest", harmless_signals(60, 0), state) for state in (1, 1, 2))
    np.testing.assert_array_equal(first["detector.cut"], again["detector.cut"])
    assert (
        first["detector.cut"].shape != other["detector.cut"].shape
        or (first["detector.cut"] != other["detector.cut"]).any()
    )


def test_signals_of_another_model_are_refused() -> None:
    sigma = harmless_signals(100, 0)
    guard = DetectorGuard("pca", quantile=0.9).fit(Signal(sigma, MADE))
    with pytest.raises(ProvenanceError, match="the guard and the signal do not belong together"):
        guard.predict(Signal(sigma, replace(MADE, layers=(12,))))


@pytest.mark.parametrize("name", DETECTORS)
def test_a_signal_of_one_step_can_be_guarded(name: str) -> None:
    guard = DetectorGuard(name, random_state=0).fit(harmless_signals(100, 0)[:, :1])
    assert np.isfinite(guard.errors(harmless_signals(5, 1)[:, :1])).all()
