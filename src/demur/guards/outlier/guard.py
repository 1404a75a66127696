"""Guards with the usual detectors of outliers in place of the autoencoder, for comparison.

In: signals `[prompts, steps]`. Out: errors of the chosen detector. What follows from an error is the same for all
guards, what a detector computes is in `demur.guards.outlier.detectors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur.guards.base import Floats, Guard
from demur.guards.outlier.detectors import detector_errors, learn_detector
from demur.guards.validity import require_learned


class DetectorGuard(Guard):
    """Outlier detector for signals with one of five detectors of scikit-learn, trained on harmless ones.

    Steps are put on one scale first, with their variances shrunk towards their mean, so that a step at which the
    signal does not move among harmless prompts does not decide everything.

    Parameters
    ----------
    detector : str, default="mahalanobis"
        "mahalanobis" (squared distance with a Ledoit-Wolf covariance), "pca" (squared error of the reconstruction
        from a quarter as many components), "neighbours" (mean distance to the five nearest training signals),
        "one-class-svm" (Gaussian kernel) or "isolation-forest" (200 trees).
    quantile : float, default=0.99
        Share of harmless signals that are to pass; the threshold is this quantile of their errors.
    random_state : int, RandomState instance or None, default=None
        Of the isolation forest; the others draw nothing.

    Attributes
    ----------
    threshold_, offset_, calibrated_, n_calibration_, false_positive_low_, false_positive_high_, provenance_
        As in `SRIGuard`. Without calibration the threshold is too low, most of all with "neighbours", where every
        training signal is its own nearest one.
    learned_ : dict of ndarray
        All that the detector has learned, and the scale of the steps.
    n_features_in_ : int
        T, the number of steps.

    Examples
    --------
    >>> import numpy as np
    >>> from demur.guards import DetectorGuard
    >>> rng = np.random.default_rng(0)
    >>> harmless = 0.9 + 0.03 * rng.standard_normal((300, 32))
    >>> guard = DetectorGuard("pca").fit(harmless[:200], calibration=harmless[200:])
    >>> guard.predict([np.full(32, 0.9), np.linspace(0.9, 0.1, 32)])
    array([ 1, -1])
    """

    _kind = "detector-guard"

    def __init__(
        self,
        detector: str = "mahalanobis",
        *,
        quantile: float = 0.99,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.detector = detector
        self.quantile = quantile
        self.random_state = random_state

    def _learn(self, values: Floats) -> None:
        self.learned_ = learn_detector(self.detector, values, self.random_state)

    def _errors(self, values: Floats) -> Floats:
        return detector_errors(self.detector, self.learned_, values)

    def _state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        return self.learned_, {}

    def _restore(self, arrays: Mapping[str, NDArray[Any]], learned: Mapping[str, Any]) -> None:
        self.learned_ = dict(arrays)
        self.n_features_in_ = require_learned(self.detector, self.learned_)
