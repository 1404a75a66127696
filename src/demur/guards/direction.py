"""Direction guard: how far a generation lies towards harmful requests, in units of how harmless ones scatter.

In: states `[prompts, places, layers, width]`, phi at a few steps, and labels. Out: errors. What follows from an
error is the same for all guards; recording the states is left to who has the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from demur.errors import InputError
from demur.guards.base import Floats
from demur.guards.inputs import labels_of, require_arrays, require_no_second_signals
from demur.guards.linear import LinearGuard
from demur.guards.places import PLACES
from demur.provenance import require_comparable
from demur.signal import Signal


class DirectionGuard(LinearGuard):
    """Outlier detector along one direction: from harmless generations towards plain harmful requests.

    The signal asks which anchor a state is nearer to, by the angle alone; but along some directions harmless states
    scatter widely, and there a difference says little. This guard takes, for each place and layer, Fisher's
    discriminant: the difference of the two means, divided by the covariance of the harmless states (Ledoit-Wolf).
    The error is the mean of those projections, each in standard deviations of the harmless ones, so places and
    layers count alike. Only the side towards harmful requests is flagged. No jailbreak is seen: the harmful side are
    plain requests, such as those of the harmful anchor, whether they were refused or answered.

    Parameters
    ----------
    quantile : float, default=0.99
        Share of harmless generations that are to pass; the threshold is this quantile of their errors.
    places : sequence of float, default=(0.5, 1.0)
        Where on its way a generation is looked at, as given to `states_of`.

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
    >>> states = rng.standard_normal((600, 2, 1, 8))
    >>> y = np.arange(600) % 2
    >>> states[y == 1, ..., 0] += 3
    >>> guard = DirectionGuard().fit(states[:400], y[:400], calibration=states[400:][y[400:] == 0])
    >>> float((guard.predict(states[y == 1]) == -1).mean()) > 0.9
    True
    """

    _kind = "direction-guard"
    watched_as = "direction"

    def __init__(self, quantile: float = 0.99, *, places: Sequence[float] = PLACES) -> None:
        self.quantile = quantile
        self.places = places

    def fit(
        self, X: ArrayLike, y: Any = None, *, calibration: ArrayLike | None = None, harmful: ArrayLike | None = None
    ) -> Self:
        """Find the direction, and calibrate where held-out harmless states are given.

        X : states from `states_of`, `[prompts, places, layers, width]`, or of one place and layer `[prompts, width]`.
        y : 0 for a harmless generation, 1 for one for a plain harmful request. calibration : see `calibrate`.
        harmful : the older way: states of the harmful ones by themselves, made alike; X then holds the harmless ones,
        and there is no y.
        """
        self._check_parameters()
        require_arrays(X)
        self._require_places(X)
        if harmful is None:
            values = self._validated(X, reset=True)
            is_harmful = labels_of(y, len(values), ", or states of plain harmful requests as harmful=…")
            harmless, towards = values[~is_harmful], values[is_harmful]
        else:
            _require_alike(X, y, harmful)
            towards, harmless = self._validated(harmful, reset=True), self._validated(X, reset=True)
        self.provenance_ = X.provenance if isinstance(X, Signal) else None
        self._find(harmless, towards.mean(axis=0, dtype=np.float64))
        return self._limited(harmless, calibration)

    def _find(self, values: Floats, harmful_mean: Floats) -> None:
        """Fisher's discriminant of each place and layer, from harmless states and the mean of harmful ones."""
        from scipy.linalg import solve
        from sklearn.covariance import ledoit_wolf

        self.centre_ = values.mean(axis=0, dtype=np.float64)
        self.direction_ = np.empty(self.centre_.shape)
        for place, layer in np.ndindex(self.centre_.shape[:2]):
            states = values[:, place, layer].astype(np.float64) - self.centre_[place, layer]
            covariance, _ = ledoit_wolf(states, assume_centered=True)
            covariance[np.diag_indices_from(covariance)] += 1e-6 * states.var() + 1e-12  # states that do not vary
            towards = harmful_mean[place, layer] - self.centre_[place, layer]
            direction = solve(covariance, towards, assume_a="pos")
            self.direction_[place, layer] = direction / max(float((states @ direction).std()), 1e-12)


def _require_alike(X: ArrayLike, y: Any, harmful: ArrayLike) -> None:
    """Refuse harmful states that were not made like the harmless ones, or that come with labels."""
    require_no_second_signals(y)
    if y is not None:
        raise InputError("y and harmful both say which generations are harmful; give one of them")
    require_arrays(harmful)
    if isinstance(X, Signal) and isinstance(harmful, Signal):
        require_comparable(X.provenance, harmful.provenance, ("the harmless states", "the harmful states"))
    if np.shape(X)[1:] != np.shape(harmful)[1:]:
        raise InputError(f"states of shape {np.shape(X)[1:]} and, harmful, {np.shape(harmful)[1:]}; expected one.")
