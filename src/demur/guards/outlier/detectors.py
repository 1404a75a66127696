"""The usual detectors of outliers, each learned as plain arrays, so that all can be saved without pickle.

In: `[prompts, columns]` of harmless generations. Out: arrays, and with them an error a generation, higher where it
is stranger. scikit-learn does the learning; columns are put on one scale first. Thresholds are left to the guards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur.errors import InputError
from demur.guards.outlier.isolation import forest_errors, learn_forest

Arrays = Mapping[str, NDArray[Any]]
Floats = NDArray[np.floating[Any]]

_SHRINKAGE = 0.1
_NEIGHBOURS = 5
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Detector:
    """How to learn from `[prompts, columns]` and a seed, and the error of each row with what was learned."""

    learn: Callable[[Floats, int], dict[str, NDArray[Any]]]
    errors: Callable[[Arrays, Floats], Floats]


def location_and_scale(values: Floats) -> tuple[Floats, Floats]:
    """Median and robust spread of every column, `[columns, ...]` each, of `[prompts, columns, ...]`.

    The spread is the interquartile range in standard deviations of a normal distribution, its square shrunk by a
    tenth towards the mean variance of all columns: the signal of a saturated step hardly moves, and divided by
    that alone the smallest movement would outweigh all other steps.
    """
    low, centre, high = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
    typical = values.var(axis=0).mean(axis=0, keepdims=True)
    scale = np.sqrt((1 - _SHRINKAGE) * ((high - low) / 1.349) ** 2 + _SHRINKAGE * typical)
    return centre, np.maximum(scale, 1e-6 * (1 + np.abs(centre)))


def learn_detector(name: str, values: Floats, random_state: Any) -> dict[str, NDArray[Any]]:
    """All that the detector `name` learns of harmless generations `[prompts, columns]`."""
    from sklearn.utils import check_random_state

    if name not in DETECTORS:
        raise InputError(f"detector is {name!r}; expected one of {', '.join(DETECTORS)}.")
    values = values.astype(np.float64)
    centre, scale = location_and_scale(values)
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    learned = DETECTORS[name].learn((values - centre) / scale, seed)
    # In the layout of a file, for products round by layout and a loaded guard must give the same errors.
    kept = {f"detector.{key}": np.ascontiguousarray(array) for key, array in learned.items()}
    return {**kept, "centre": centre, "scale": scale}


def detector_errors(name: str, arrays: Arrays, values: Floats) -> Floats:
    """The error of each of `[prompts, columns]` with the arrays of `learn_detector`, float64 `[prompts]`."""
    learned = {key.removeprefix("detector."): array for key, array in arrays.items()}
    scaled = (values.astype(np.float64) - arrays["centre"]) / arrays["scale"]
    starts = range(0, len(scaled), _ROWS_AT_ONCE)
    return np.concatenate([DETECTORS[name].errors(learned, scaled[start : start + _ROWS_AT_ONCE]) for start in starts])


def _learn_covariance(values: Floats, seed: int) -> dict[str, NDArray[Any]]:
    from sklearn.covariance import LedoitWolf

    fitted = LedoitWolf().fit(values)
    # Ledoit-Wolf shrinks towards the mean variance, which is 0 where nothing moves at all.
    covariance = fitted.covariance_ + 1e-6 * np.eye(values.shape[1])
    return {"location": fitted.location_, "precision": np.linalg.inv(covariance)}


def _mahalanobis(learned: Arrays, values: Floats) -> Floats:
    rest = values - learned["location"]
    squared: Floats = ((rest @ learned["precision"]) * rest).sum(axis=1)
    return squared


def _learn_components(values: Floats, seed: int) -> dict[str, NDArray[Any]]:
    from sklearn.decomposition import PCA

    # A quarter of the columns, as the autoencoder's 8 units for 32 steps.
    count = min(values.shape[1] // 4, len(values) - 1)
    if not count or not values.any():
        return {"location": values.mean(axis=0), "components": np.zeros((0, values.shape[1]))}
    fitted = PCA(n_components=count, svd_solver="full").fit(values)
    return {"location": fitted.mean_, "components": fitted.components_}


def _reconstruction(learned: Arrays, values: Floats) -> Floats:
    rest = values - learned["location"]
    rest = rest - rest @ learned["components"].T @ learned["components"]
    squared: Floats = (rest * rest).sum(axis=1)
    return squared


def _neighbours(learned: Arrays, values: Floats) -> Floats:
    from scipy.spatial.distance import cdist

    # scikit-learn's search would leave threads behind that make a forked process hang.
    distances = cdist(values, learned["points"])
    nearest = np.partition(distances, min(_NEIGHBOURS, distances.shape[1]) - 1, axis=1)[:, :_NEIGHBOURS]
    mean: Floats = np.sort(nearest, axis=1).mean(axis=1)
    return mean


def _learn_support(values: Floats, seed: int) -> dict[str, NDArray[Any]]:
    from sklearn.svm import OneClassSVM

    variance = float(values.var())
    gamma = 1 / (values.shape[1] * variance) if variance else 1.0
    fitted = OneClassSVM(gamma=gamma, nu=0.1).fit(values)
    return {"points": fitted.support_vectors_, "weights": fitted.dual_coef_[0], "gamma": np.array([gamma])}


def _outside(learned: Arrays, values: Floats) -> Floats:
    from sklearn.metrics.pairwise import rbf_kernel

    near = rbf_kernel(values, learned["points"], float(learned["gamma"][0])) @ learned["weights"]
    outside: Floats = learned["weights"].sum() - near
    return outside


DETECTORS = {
    "mahalanobis": Detector(_learn_covariance, _mahalanobis),
    "pca": Detector(_learn_components, _reconstruction),
    "neighbours": Detector(lambda values, seed: {"points": values}, _neighbours),
    "one-class-svm": Detector(_learn_support, _outside),
    "isolation-forest": Detector(learn_forest, forest_errors),
}
"""By name: squared Mahalanobis distance with a Ledoit-Wolf covariance; squared error of a PCA reconstruction; mean
distance to the five nearest training rows; one-class SVM with a Gaussian kernel; isolation forest."""
