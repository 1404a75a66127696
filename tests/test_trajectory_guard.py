"""The trajectory guard: what it sees that a signal does not show, shapes, files, provenance."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from demur.errors import InputError, ProvenanceError
from demur.files.arrays import read_arrays, write_arrays
from demur.guards import TrajectoryGuard
from demur.guards.outlier.detectors import location_and_scale
from demur.provenance import Provenance
from demur.signal import Signal

MADE = Provenance("toy", "f" * 64, {"name": "Autoregressive", "steps": 16, "seed": 0}, (12, 24), anchors="features")


def trajectories(count: int, seed: int, steps: int = 16) -> np.ndarray:
    """Of two layers, log-ratio and log-distance: both follow the topic, with heavy tails, and wander a little."""
    rng = np.random.default_rng(seed)
    topic = rng.standard_t(4, size=(count, 1, 1, 1)) * np.array([1.0, -0.6])
    walk = 0.1 * rng.normal(size=(count, steps, 2, 1)).cumsum(axis=1)
    return (3 + topic + walk + 0.2 * rng.normal(size=(count, steps, 2, 2))).astype(np.float32)


@pytest.fixture(scope="module")
def guard() -> TrajectoryGuard:
    return TrajectoryGuard(quantile=0.95).fit(trajectories(400, 0), calibration=trajectories(200, 1))


def test_the_error_is_the_distance_of_the_summaries_of_scaled_steps() -> None:
    train, fresh = trajectories(300, 0).astype(np.float64), trajectories(20, 1).astype(np.float64)
    centre, scale = location_and_scale(train.reshape(300, 16, 4))

    def summaries(x: np.ndarray) -> np.ndarray:
        x = (x.reshape(len(x), 16, 4) - centre) / scale
        return np.concatenate([x.mean(axis=1), x.min(axis=1), x.max(axis=1), x[:, -1]], axis=1)

    middle, width = location_and_scale(summaries(train))
    scaled = (summaries(train) - middle) / width
    fitted = LedoitWolf().fit(scaled)
    expected = fitted.mahalanobis((summaries(fresh) - middle) / width)
    np.testing.assert_allclose(TrajectoryGuard().fit(train).errors(fresh), expected, rtol=1e-3)


def test_features_usual_by_themselves_and_unusual_together_are_flagged(guard: TrajectoryGuard) -> None:
    strange = trajectories(200, 2) + np.array([0.8, 0.8], dtype=np.float32)  # usually the one falls as the other rises
    single = TrajectoryGuard(quantile=0.95).fit(
        trajectories(400, 0)[..., :1], calibration=trajectories(200, 1)[..., :1]
    )
    assert (guard.predict(strange) == -1).mean() > 0.9
    assert (single.predict(strange[..., :1]) == -1).mean() < 0.2


def test_layers_that_disagree_are_flagged(guard: TrajectoryGuard) -> None:
    strange = trajectories(200, 2)
    strange[:, :, 1] -= np.float32(1.5)
    assert (guard.predict(strange) == -1).mean() > 0.9


def test_harmless_trajectories_are_flagged_as_seldom_as_calibrated(guard: TrajectoryGuard) -> None:
    flagged = float((guard.predict(trajectories(3000, 3)) == -1).mean())
    assert guard.calibrated_ and guard.false_positive_low_ <= flagged <= guard.false_positive_high_


@pytest.mark.parametrize("detector", ["pca", "neighbours", "one-class-svm", "isolation-forest"])
def test_every_detector_and_summary_can_be_had(detector: str) -> None:
    every = ("mean", "min", "max", "first", "last", "movement", "steps")
    guard = TrajectoryGuard(every, detector=detector, quantile=0.9, random_state=0).fit(trajectories(100, 0))
    assert len(guard.learned_["centre"]) == 6 * 4 + 16 * 4
    assert np.isfinite(guard.errors(trajectories(9, 1))).all()


def test_features_that_never_move_do_not_blow_up() -> None:
    train = trajectories(200, 0)
    train[:, 3:6], train[:, :, 1, 1] = 1, 2
    guard = TrajectoryGuard().fit(train)
    errors = guard.errors(train + np.float32(0.05))
    assert np.isfinite(errors).all() and np.isfinite(guard.errors(train)).all()


def test_a_signal_is_a_trajectory_of_one_feature() -> None:
    sigma = trajectories(100, 0)[:, :, 0, 0]
    flat, deep = TrajectoryGuard().fit(sigma), TrajectoryGuard().fit(sigma[:, :, None])
    np.testing.assert_array_equal(flat.errors(sigma), deep.errors(sigma[:, :, None]))


def test_other_shapes_and_broken_values_are_refused(guard: TrajectoryGuard) -> None:
    with pytest.raises(InputError, match=r"shape \(16, 4\); expected \(16, 2, 2\), \[steps, layers, 2\]"):
        guard.errors(trajectories(3, 0).reshape(3, 16, 4))
    with pytest.raises(InputError, match="15 features, but TrajectoryGuard is expecting 64"):
        guard.errors(trajectories(3, 0)[:, :15, 0, 0])
    broken = trajectories(3, 0)
    broken[1, 2, 0, 1] = np.inf
    with pytest.raises(InputError, match="infinity"):
        guard.errors(broken)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"summaries": ("mean", "median")}, "summaries is .*'median'.*; expected some of mean, min, max"),
        ({"summaries": ()}, "summaries is "),
        ({"detector": "lof"}, "detector is 'lof'"),
        ({"quantile": 1.0}, "quantile is 1.0"),
    ],
)
def test_a_parameter_out_of_range_is_named(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrajectoryGuard(**parameters).fit(trajectories(50, 0))


def test_features_of_other_layers_or_anchors_are_refused() -> None:
    train = Signal(trajectories(100, 0), MADE)
    guard = TrajectoryGuard(quantile=0.9).fit(train)
    assert guard.provenance_ == MADE and guard.predict(train).shape == (100,)
    for changes in ({"layers": (6, 24)}, {"anchors": "others"}, {"fingerprint": "e" * 64}):
        with pytest.raises(ProvenanceError, match="the guard and the signal do not belong together"):
            guard.predict(Signal(train, replace(MADE, **changes)))


def test_a_saved_guard_comes_back_as_it_was(tmp_path: Path) -> None:
    path, fresh = tmp_path / "g.safetensors", trajectories(30, 2)
    guard = TrajectoryGuard(("mean", "steps"), detector="pca", quantile=0.9).fit(Signal(trajectories(100, 0), MADE))
    guard.calibrate(trajectories(50, 1)).save(path)
    loaded = TrajectoryGuard.load(path)
    np.testing.assert_array_equal(loaded.errors(fresh), guard.errors(fresh))
    np.testing.assert_array_equal(loaded.predict(fresh), guard.predict(fresh))
    assert loaded.get_params() == guard.get_params() and loaded.provenance_ == MADE
    assert (loaded.shape_, loaded.n_features_in_, loaded.n_calibration_) == ((16, 2, 2), 64, 50)
    arrays, header = read_arrays(path, "trajectory-guard")
    write_arrays(path, {**arrays, "step_scale": arrays["step_scale"][:3]}, header)
    with pytest.raises(InputError, match=r"g\.safetensors: its header and arrays do not fit"):
        TrajectoryGuard.load(path)
