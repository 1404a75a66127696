"""Direction guard: how far a generation lies towards harmful requests, in units of how harmless ones scatter.

In: states `[prompts, places, layers, width]`, phi at a few steps. Out: errors. What follows from an error is the same
for all guards; recording the states is left to who has the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.anchor_sums import RecordingLike
from demur.errors import InputError
from demur.guards.guard import Floats, Guard
from demur.provenance import require_comparable
from demur.signal import Signal

PLACES = (0.5, 1.0)
"""Where on its way a generation is looked at, in shares of its steps."""


def states_of(recording: RecordingLike, places: Sequence[float] = PLACES) -> Signal:
    """Phi of every prompt at a few steps, float32 `[prompts, places, layers, width]`, which knows its recording.

    places : shares of the steps, above 0 and at most 1; the step is rounded up, so 1 is the last one.
    """
    if not places or not all(0 < place <= 1 for place in places):
        raise InputError(f"places is {list(places)}; expected shares of the steps above 0 and at most 1, such as 0.5.")
    states = np.empty(0, dtype=np.float32)
    for rows, phi in recording.phi_batches():
        steps = [int(np.ceil(place * phi.shape[1])) - 1 for place in places]
        if not states.size:
            states = np.full((len(recording.table), len(steps), *phi.shape[2:]), np.nan, dtype=np.float32)
        states[rows] = phi[:, steps]
    return Signal(states, replace(recording.provenance, anchors=f"states at {tuple(places)}"))


class DirectionGuard(Guard):
    """Outlier detector along one direction: from harmless generations towards plain harmful requests.

    The signal asks which anchor a state is nearer to, by the angle alone; but along some directions harmless states
    scatter widely, and there a difference says little. This guard takes, for each place and layer, Fisher's
    discriminant: the difference of the two means, divided by the covariance of the harmless states (Ledoit-Wolf).
    The error is the mean of those projections, each in standard deviations of the harmless ones, so places and
    layers count alike. Only the side towards harmful requests is flagged. No jailbreak is seen: the harmful side are
    plain requests, such as those of the harmful anchor, whether they were refused or answered.

    Parameters
    ----------
    quantile : float, default=0.985
        Share of harmless generations that are to pass; the threshold is this quantile of their errors.

    Attributes
    ----------
    threshold_, offset_, calibrated_, n_calibration_, false_positive_low_, false_positive_high_, provenance_
        As in `SRIGuard`.
    centre_, direction_ : ndarray
        Mean of the harmless states, and what a state's difference from it is multiplied with: the projections have a
        standard deviation of 1 among the harmless training states. `[places, layers, width]` each.
    n_features_in_ : int
        Numbers in the states of a generation.

    Examples
    --------
    >>> import numpy as np
    >>> from demur.guards import DirectionGuard
    >>> rng = np.random.default_rng(0)
    >>> harmless, harmful = rng.standard_normal((2, 300, 2, 1, 8))
    >>> harmful[..., 0] += 3
    >>> guard = DirectionGuard().fit(harmless[:200], harmful=harmful, calibration=harmless[200:])
    >>> float((guard.predict(harmful) == -1).mean()) > 0.9
    True
    """

    _kind = "direction-guard"

    def __init__(self, quantile: float = 0.985) -> None:
        self.quantile = quantile

    def fit(
        self, X: ArrayLike, y: object = None, *, calibration: ArrayLike | None = None, harmful: ArrayLike | None = None
    ) -> Self:
        """Find the direction, and calibrate where held-out harmless states are given.

        X : states of harmless generations, from `states_of`. harmful : states of generations for plain harmful
        requests, made alike. y : ignored. calibration : see `calibrate`.
        """
        if harmful is None:
            raise InputError("no harmful generations; give states of plain harmful requests as harmful=…")
        if isinstance(X, Signal) and isinstance(harmful, Signal):
            require_comparable(X.provenance, harmful.provenance, ("the harmless states", "the harmful states"))
        if np.shape(X)[1:] != np.shape(harmful)[1:]:
            raise InputError(f"states of shape {np.shape(X)[1:]} and, harmful, {np.shape(harmful)[1:]}; expected one.")
        self._harmful_mean = self._validated(harmful, reset=True).mean(axis=0, dtype=np.float64)
        try:
            return super().fit(X, calibration=calibration)
        finally:
            del self._harmful_mean

    def _learn(self, values: Floats) -> None:
        from scipy.linalg import solve
        from sklearn.covariance import ledoit_wolf

        self.centre_ = values.mean(axis=0, dtype=np.float64)
        self.direction_ = np.empty(self.centre_.shape)
        for place, layer in np.ndindex(self.centre_.shape[:2]):
            states = values[:, place, layer].astype(np.float64) - self.centre_[place, layer]
            covariance, _ = ledoit_wolf(states, assume_centered=True)
            covariance[np.diag_indices_from(covariance)] += 1e-6 * states.var() + 1e-12  # states that do not vary
            towards = self._harmful_mean[place, layer] - self.centre_[place, layer]
            direction = solve(covariance, towards, assume_a="pos")
            self.direction_[place, layer] = direction / max(float((states @ direction).std()), 1e-12)

    def place_errors(self, X: ArrayLike) -> Floats:
        """The error at each place by itself, `[prompts, places]`: with many places, a signal to watch as it comes."""
        return self._projected(self._checked(X))

    def _errors(self, values: Floats) -> Floats:
        errors: Floats = self._projected(values).mean(axis=1)
        return errors

    def _projected(self, values: Floats) -> Floats:
        offset = (self.centre_ * self.direction_).sum(axis=2)
        projected: Floats = (np.einsum("nplw,plw->npl", values, self.direction_) - offset).mean(axis=2)
        return projected

    def _validated(self, X: ArrayLike, *, reset: bool) -> Floats:
        shape = np.shape(X)
        if len(shape) != 4 or (not reset and shape[1:] != self.centre_.shape):
            expected = "[prompts, places, layers, width]" if reset else f"[prompts, {str(self.centre_.shape)[1:-1]}]"
            raise InputError(f"states of shape {list(shape)}; expected {expected}, from `states_of`.")
        return super()._validated(np.asarray(X).reshape(shape[0], -1), reset=reset).reshape(shape)

    def _shape_of_one(self) -> tuple[int, ...]:
        return 1, *self.centre_.shape

    def _state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        return {"centre": self.centre_, "direction": self.direction_}, {}

    def _restore(self, arrays: Mapping[str, NDArray[Any]], learned: Mapping[str, Any]) -> None:
        self.centre_, self.direction_ = arrays["centre"], arrays["direction"]
        self.n_features_in_ = self.centre_.size
