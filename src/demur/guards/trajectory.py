"""Trajectory guard: an outlier detector over several numbers a step, in place of the one signal.

In: features `[prompts, steps, layers, 2]` from `Anchors.features`, or any other numbers a step. Out: errors. What
follows from an error is the same for all guards; what the numbers mean is left to who made them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.errors import InputError
from demur.guards.base import Floats, Guard
from demur.guards.outlier.detectors import detector_errors, learn_detector, location_and_scale
from demur.guards.validity import require_array, require_learned

SUMMARIES: dict[str, Callable[[Floats], Floats]] = {
    "mean": lambda values: values.mean(axis=1),
    "min": lambda values: values.min(axis=1),
    "max": lambda values: values.max(axis=1),
    "first": lambda values: values[:, 0],
    "last": lambda values: values[:, -1],
    "movement": lambda values: np.abs(np.diff(values, axis=1)).sum(axis=1) / max(1, values.shape[1] - 1),
    "steps": lambda values: values.reshape(len(values), -1),
}
"""By name: what is made of `[prompts, steps, features]`; all `[prompts, features]` but "steps", which keeps every
step. "movement" is the mean absolute change from one step to the next."""


class TrajectoryGuard(Guard):
    """Outlier detector for trajectories of several features, trained on harmless generations.

    The signal is near 0 or 1 most of the time, and what lies beyond cannot be told apart any more. This guard takes
    numbers that do not saturate: for each layer the log-ratio of the distances to both anchors and the logarithm of
    the distance to the harmless one (`Anchors.features`). Every feature of every step is centred and scaled
    robustly by the training generations, the steps are summarised, and the error is that of a detector over the
    summaries, by default the squared Mahalanobis distance with a Ledoit-Wolf covariance: it also sees features
    that are usual each for itself and unusual together.

    Parameters
    ----------
    summaries : sequence of str, default=("mean", "min", "max", "last")
        What of the steps of each feature is looked at: any of "mean", "min", "max", "first", "last", "movement",
        and "steps" for each step by itself.
    detector : str, default="mahalanobis"
        As in `DetectorGuard`.
    quantile : float, default=0.99
        Share of harmless generations that are to pass; the threshold is this quantile of their errors.
    random_state : int, RandomState instance or None, default=None
        Of the isolation forest; the others draw nothing.

    Attributes
    ----------
    threshold_, offset_, calibrated_, n_calibration_, false_positive_low_, false_positive_high_, provenance_
        As in `SRIGuard`.
    shape_ : tuple of int
        Steps and features of a generation, as given to `fit`.
    step_centre_, step_scale_ : ndarray
        Median and robust spread of each feature at each step, `[steps, features]`.
    learned_ : dict of ndarray
        All that the detector has learned of the summaries, and their scale.
    n_features_in_ : int
        Numbers in a generation.

    Examples
    --------
    >>> import numpy as np
    >>> from demur.guards import TrajectoryGuard
    >>> rng = np.random.default_rng(0)
    >>> harmless = rng.standard_normal((300, 1, 1, 1)) + 0.3 * rng.standard_normal((300, 32, 2, 2))
    >>> guard = TrajectoryGuard().fit(harmless[:200], calibration=harmless[200:])
    >>> strange = harmless[:1] + np.array([1.5, -1.5])  # two features that usually go together
    >>> guard.predict(np.concatenate([harmless[:1], strange]))
    array([ 1, -1])
    """

    _kind = "trajectory-guard"
    shape_: tuple[int, ...]

    def __init__(
        self,
        summaries: Sequence[str] = ("mean", "min", "max", "last"),
        *,
        detector: str = "mahalanobis",
        quantile: float = 0.99,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.summaries = summaries
        self.detector = detector
        self.quantile = quantile
        self.random_state = random_state

    def _check_parameters(self) -> None:
        super()._check_parameters()
        unknown = [name for name in self.summaries if name not in SUMMARIES]
        if unknown or not len(self.summaries):
            raise InputError(f"summaries is {list(self.summaries)}; expected some of {', '.join(SUMMARIES)}.")

    def _validated(self, X: ArrayLike, *, reset: bool) -> Floats:
        """X as `[prompts, steps, features]`; two axes are steps of a single feature."""
        try:
            shape = np.asarray(X).shape
        except ValueError as error:
            raise InputError(f"features [prompts, steps, layers, 2] that cannot be used: {error}") from error
        if len(shape) < 3:
            values = super()._validated(X, reset=reset)
            shape = values.shape
        elif reset or shape[1:] == self.shape_:
            values = super()._validated(np.asarray(X).reshape(shape[0], -1), reset=reset)
        else:
            raise InputError(
                f"found generations of shape {shape[1:]}; expected {self.shape_}, [steps, layers, 2] as in training. "
                "Make both with the same anchors and layers."
            )
        if reset:
            self.shape_ = tuple(shape[1:])
        return values.reshape(len(values), self.shape_[0], -1)

    def _learn(self, values: Floats) -> None:
        self.step_centre_, self.step_scale_ = location_and_scale(values.astype(np.float64))
        self.learned_ = learn_detector(self.detector, self._summarised(values), self.random_state)

    def _errors(self, values: Floats) -> Floats:
        return detector_errors(self.detector, self.learned_, self._summarised(values))

    def _summarised(self, values: Floats) -> Floats:
        """`[prompts, summaries x features]` of `[prompts, steps, features]`."""
        scaled = (values.astype(np.float64) - self.step_centre_) / self.step_scale_
        return np.concatenate([SUMMARIES[name](scaled) for name in self.summaries], axis=1)

    def _shape_of_one(self) -> tuple[int, ...]:
        return 1, *self.step_centre_.shape

    def _state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        arrays = {"step_centre": self.step_centre_, "step_scale": self.step_scale_, **self.learned_}
        return arrays, {"shape_": list(self.shape_)}

    def _restore(self, arrays: Mapping[str, NDArray[Any]], learned: Mapping[str, Any]) -> None:
        self.learned_ = dict(arrays)
        self.step_centre_ = require_array(arrays, "step_centre", None, None)
        self.step_scale_ = require_array(arrays, "step_scale", *self.step_centre_.shape, above=0)
        del self.learned_["step_centre"], self.learned_["step_scale"]
        self.shape_ = tuple(learned["shape_"])
        self.n_features_in_ = self.step_centre_.size
        self.summaries = tuple(self.summaries)  # JSON has no tuples
        sizes = [type(size) is int and size > 0 for size in self.shape_]
        if not all(sizes) or (self.shape_[0], math.prod(self.shape_)) != (len(self.step_centre_), self.n_features_in_):
            raise ValueError(f"generations of shape {list(self.shape_)} with {list(self.step_centre_.shape)} features")
        columns = self._summarised(np.zeros(self._shape_of_one())).shape[1]
        if require_learned(self.detector, self.learned_) != columns:
            raise ValueError(f"the detector has not learned of {columns} summaries")
