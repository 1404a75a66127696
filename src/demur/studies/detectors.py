"""The detectors that a study compares, all trained and calibrated on the same harmless generations.

In: signals, text-level signals and features of every prompt set. Out: a score for every generation and a limit, a
detector at a time, the paper's guard first. How well they do is measured in `demur.studies.detection`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from demur.guards import DetectorGuard, DirectionGuard, SRIGuard, StreamingGuard, TrajectoryGuard
from demur.guards.calibration import warned_already
from demur.guards.guard import Guard
from demur.studies.detection import Detector

TRAIN, CALIBRATION = "guard_train_harmless", "guard_calibration_harmless"
SRI, MEAN, TEXT = "SRI Guard", "mean signal", "SRI Guard on the text signal"
DIRECTION, TRAJECTORY = "Direction Guard", "Trajectory Guard"
STREAMING, STREAMING_DIRECTION = "Streaming Guard", "Streaming Guard on the direction"
ON_SIGNAL = {
    "Mahalanobis distance": "mahalanobis",
    "PCA": "pca",
    "nearest neighbours": "neighbours",
    "one-class SVM": "one-class-svm",
    "isolation forest": "isolation-forest",
}
"""The detectors of `DetectorGuard` on the signal, by the names that results carry."""

LOOKS = tuple((look + 1) / 8 for look in range(8))
"""Where the states are taken: at eight looks, of which the direction guard uses the fourth and the last."""

Sets = Mapping[str, np.ndarray]
AnyGuard = TypeVar("AnyGuard", bound=Guard)


def fit_guard(signals: Sets, quantile: float, seed: int) -> SRIGuard:
    """The paper's guard, trained on guard_train_harmless and calibrated on guard_calibration_harmless."""
    return _fitted(SRIGuard(quantile=quantile, random_state=seed), signals)


@warned_already()
def detectors_of(
    guard: SRIGuard,
    signals: Sets,
    texts: Sets,
    features: Sets,
    states: Sets,
    harmful: np.ndarray,
    *,
    quantile: float,
    seed: int,
) -> tuple[list[Detector], dict[str, tuple[float, np.ndarray]]]:
    """The paper's guard and what it is compared with; scores over all sets, in their order.

    guard : as `fit_guard` made it. features : of `Anchors.features`. states : of `states_of` at `LOOKS`, and `harmful`
        those of plain harmful prompts, which give the direction guard its direction.
    "mean signal" flags a low mean of sigma. The direction guard's error is the mean of those at its places, so it is
    read off the looks. A streaming guard's score is the highest of a generation's steps; its
    alpha is the share that `quantile` leaves, or the finest that the calibration set supports.
    Also returns, for each streaming guard, alpha and the step at which each generation would be stopped, 0 for never.
    """
    means = {name: 1 - np.asarray(sigma).mean(axis=1, keepdims=True) for name, sigma in signals.items()}
    alpha = max(1 - quantile, 1 / (len(signals[CALIBRATION]) + 1))
    watching = _fitted(DirectionGuard(quantile), states, harmful=harmful)
    looks = {name: watching.place_errors(values) for name, values in states.items()}
    halves = {name: errors[:, [3, 7]].mean(axis=1) for name, errors in looks.items()}
    streaming = _fitted(StreamingGuard(alpha), signals)
    streaming_direction = _fitted(StreamingGuard(alpha, side="high"), looks)
    detectors = [
        _scored(SRI, guard, signals),
        Detector(MEAN, _all(means)[:, 0], float(np.quantile(means[CALIBRATION], quantile))),
        _scored(TEXT, fit_guard(texts, quantile, seed), texts),
        Detector(DIRECTION, _all(halves), float(np.quantile(halves[CALIBRATION], quantile))),
        _scored(TRAJECTORY, _fitted(TrajectoryGuard(quantile=quantile), features), features),
        _scored(STREAMING, streaming, signals),
        _scored(STREAMING_DIRECTION, streaming_direction, looks),
    ]
    for name, kind in ON_SIGNAL.items():
        detectors.append(_scored(name, _fitted(DetectorGuard(kind, quantile, random_state=seed), signals), signals))
    steps = next(iter(signals.values())).shape[1]
    at = np.array([0, *(int(np.ceil(place * steps)) for place in LOOKS)])
    stops = {
        STREAMING: (alpha, streaming.stops(_all(signals))),
        STREAMING_DIRECTION: (alpha, at[streaming_direction.stops(_all(looks))]),
    }
    return detectors, stops


def _fitted(guard: AnyGuard, sets: Sets, **further: np.ndarray) -> AnyGuard:
    return guard.fit(sets[TRAIN], calibration=sets[CALIBRATION], **further)


def _scored(name: str, guard: Guard, sets: Sets) -> Detector:
    return Detector(name, guard.errors(_all(sets)), guard.threshold_)


def _all(sets: Sets) -> np.ndarray:
    return np.concatenate([np.asarray(values) for values in sets.values()])
