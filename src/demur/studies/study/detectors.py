"""The detectors that a study compares, all trained and calibrated on the same harmless generations.

In: signals, text-level signals, features and errors of the direction guards of every prompt set. Out: the guards, a
score for every generation and a limit, a detector at a time, the paper's guard first. How well they do is measured in
`detection`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from demur.guards import (
    DetectorGuard,
    SRIGuard,
    StreamingGuard,
    TrajectoryGuard,
)
from demur.guards.base import Guard
from demur.guards.calibration import warned_already
from demur.studies.study.derivers import Derived
from demur.studies.study.detection import Detector
from demur.studies.study.directions import CALIBRATION, TRAIN, Directions
from demur.studies.study.fewer import few

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

GUARD_FILE, DIRECTION_FILE, STREAMING_FILE, LOOKS_FILE, STREAMING_DIRECTION_FILE = (
    f"{name}.safetensors"
    for name in ("guard", "direction_guard", "streaming_guard", "direction_looks", "streaming_direction_guard")
)
"""The fitted guards in a study's folder; `direction_looks` is what `streaming_direction_guard` watches."""

Sets = Mapping[str, np.ndarray]
MAIN = (SRI, DIRECTION)
"""The detectors that are shown where there is room for two."""

AnyGuard = TypeVar("AnyGuard", bound=Guard)


@dataclass(frozen=True)
class Compared:
    """What `detectors_of` finds.

    detectors : scores over all sets, in their order. stops : for each streaming guard, alpha and the step at which each
        generation would be stopped, 0 for never. guards : those worth keeping, by the name of their file. text_guard :
        the paper's guard on the text-level signal.
    """

    detectors: list[Detector]
    stops: dict[str, tuple[float, np.ndarray]]
    guards: dict[str, Guard]
    text_guard: SRIGuard

    def save(self, folder: Path) -> None:
        """Write the guards, a file each."""
        for name, guard in self.guards.items():
            guard.save(folder / name)


def fit_guard(signals: Sets, quantile: float, seed: int) -> SRIGuard:
    """The paper's guard, trained on guard_train_harmless and calibrated on guard_calibration_harmless."""
    return _fitted(SRIGuard(quantile=quantile, random_state=seed), signals)


@warned_already()
def detectors_of(guard: SRIGuard, derived: Derived, directions: Directions, *, quantile: float, seed: int) -> Compared:
    """The paper's guard and what it is compared with.

    guard : as `fit_guard` made it. derived : with the errors of `directions`.
    "mean signal" flags a low mean of sigma. A streaming guard's score is the highest of a generation's steps; its
    alpha is the share that `quantile` leaves, or the finest that the calibration set supports.
    """
    signals, texts, features, looks = derived.signals, derived.texts, derived.features, derived.looks
    means = {name: 1 - np.asarray(sigma).mean(axis=1, keepdims=True) for name, sigma in signals.items()}
    alpha = max(1 - quantile, 1 / (len(signals[CALIBRATION]) + 1))
    direction, looking = directions.direction, directions.looking
    text_guard = fit_guard(texts, quantile, seed)
    streaming = _fitted(StreamingGuard(alpha), signals)
    streaming_direction = _fitted(StreamingGuard(alpha, side="high"), looks)
    detectors = [
        _scored(SRI, guard, signals),
        Detector(MEAN, _all(means)[:, 0], float(np.quantile(means[CALIBRATION], quantile))),
        _scored(TEXT, text_guard, texts),
        Detector(DIRECTION, _all(derived.towards), direction.threshold_),
        _scored(TRAJECTORY, _fitted(TrajectoryGuard(quantile=quantile), features), features),
        _scored(STREAMING, streaming, signals),
        _scored(STREAMING_DIRECTION, streaming_direction, looks),
    ]
    for name, kind in ON_SIGNAL.items():
        detectors.append(
            _scored(name, _fitted(DetectorGuard(kind, quantile=quantile, random_state=seed), signals), signals)
        )
    steps = next(iter(signals.values())).shape[1]
    stops = {
        STREAMING: (alpha, streaming.stops(_all(signals))),
        STREAMING_DIRECTION: (alpha, looking.steps_of(streaming_direction.stops(_all(looks)), steps)),
    }
    guards: dict[str, Guard] = {GUARD_FILE: guard, DIRECTION_FILE: direction, STREAMING_FILE: streaming}
    guards |= {LOOKS_FILE: looking, STREAMING_DIRECTION_FILE: streaming_direction}
    return Compared(detectors, stops, guards, text_guard)


def _fitted(guard: AnyGuard, sets: Sets) -> AnyGuard:
    return guard.fit(few(sets[TRAIN]), calibration=sets[CALIBRATION])


def _scored(name: str, guard: Guard, sets: Sets) -> Detector:
    return Detector(name, guard.errors(_all(sets)), guard.threshold_)


def _all(sets: Sets) -> np.ndarray:
    return np.concatenate([np.asarray(values) for values in sets.values()])
