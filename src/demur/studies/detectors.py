"""The detectors that a study compares, all trained and calibrated on the same harmless generations.

In: signals, text-level signals and features of every prompt set. Out: a score for every generation and a limit, a
detector at a time, the paper's guard first. How well they do is measured in `demur.studies.detection`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from demur.guards import DetectorGuard, SRIGuard, StreamingGuard, TrajectoryGuard
from demur.guards.guard import Guard
from demur.studies.detection import Detector

TRAIN, CALIBRATION = "guard_train_harmless", "guard_calibration_harmless"
SRI, MEAN, TEXT = "SRI Guard", "mean signal", "SRI Guard on the text signal"
TRAJECTORY, STREAMING = "Trajectory Guard", "Streaming Guard"
ON_SIGNAL = {
    "Mahalanobis distance": "mahalanobis",
    "PCA": "pca",
    "nearest neighbours": "neighbours",
    "one-class SVM": "one-class-svm",
    "isolation forest": "isolation-forest",
}
"""The detectors of `DetectorGuard` on the signal, by the names that results carry."""

Sets = Mapping[str, np.ndarray]
AnyGuard = TypeVar("AnyGuard", bound=Guard)


def fit_guard(signals: Sets, quantile: float, seed: int) -> SRIGuard:
    """The paper's guard, trained on guard_train_harmless and calibrated on guard_calibration_harmless."""
    return _fitted(SRIGuard(quantile=quantile, random_state=seed), signals)


def detectors_of(
    guard: SRIGuard, signals: Sets, texts: Sets, features: Sets | None, quantile: float, seed: int
) -> list[Detector]:
    """The paper's guard and what it is compared with; scores over all sets, in their order.

    guard : as `fit_guard` made it. features : of `Anchors.features`; without them there is no trajectory guard.
    "mean signal" flags a low mean of sigma. The streaming guard's score is the highest of a generation's steps; its
    alpha is the share that `quantile` leaves, or the finest that the calibration set supports.
    """
    means = {name: 1 - np.asarray(sigma).mean(axis=1, keepdims=True) for name, sigma in signals.items()}
    alpha = max(1 - quantile, 1 / (len(signals[CALIBRATION]) + 1))
    others = [(name, DetectorGuard(kind, quantile, random_state=seed), signals) for name, kind in ON_SIGNAL.items()]
    return [
        _scored(SRI, guard, signals),
        Detector(MEAN, _all(means)[:, 0], float(np.quantile(means[CALIBRATION], quantile))),
        _scored(TEXT, fit_guard(texts, quantile, seed), texts),
        *(
            []
            if features is None
            else [_scored(TRAJECTORY, _fitted(TrajectoryGuard(quantile=quantile), features), features)]
        ),
        _scored(STREAMING, _fitted(StreamingGuard(alpha), signals), signals),
        *(_scored(name, _fitted(other, sets), sets) for name, other, sets in others),
    ]


def _fitted(guard: AnyGuard, sets: Sets) -> AnyGuard:
    return guard.fit(sets[TRAIN], calibration=sets[CALIBRATION])


def _scored(name: str, guard: Guard, sets: Sets) -> Detector:
    return Detector(name, guard.errors(_all(sets)), guard.threshold_)


def _all(sets: Sets) -> np.ndarray:
    return np.concatenate([np.asarray(values) for values in sets.values()])
