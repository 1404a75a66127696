"""Streaming guard: flags a signal while it still arrives, with a bound on how often a harmless one is stopped.

In: signals `[prompts, steps]`, or one step of a batch at a time. Out: a score a step and the step at which a
generation would be stopped. Stopping it, and what the user then sees, are left to defenses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from demur.errors import InputError
from demur.guards.base import Floats, Guard
from demur.guards.calibration import conformal_threshold
from demur.guards.inputs import require_share
from demur.guards.linear import LinearGuard
from demur.guards.streaming.watch import FEATURES, Beginnings, Usual, Watch
from demur.guards.validity import require_array
from demur.provenance import require_comparable
from demur.sharing import Shareable
from demur.signal import Anchors

_TAIL = 0.025


@dataclass(frozen=True)
class StepsSaved:
    """What stopping saves: of `prompts` generations `stopped` were, and `saved` of their `steps` steps not made."""

    prompts: int
    stopped: int
    steps: int
    saved: int


class StreamingGuard(Guard):
    """Outlier detector for the beginnings of signals: a score after every step, and one limit for all of them.

    After each step three features of the signal so far are compared with those of harmless training signals at that
    step: the latest value, the mean, and the mean absolute change from step to step. Each is counted in tails: 1 is
    the distance from the median to the quantile that one of forty harmless signals lies beyond, below or above; a
    signal cannot change too little. So a feature that now and then goes far among harmless signals must go further
    than one that never does. The score of a step is the highest of the three, the error of a whole signal the
    highest score of its steps, and a signal is stopped at the first step whose score is above the threshold.

    Calibration is split conformal on that highest score: with n held-out harmless signals the threshold is the
    ``ceil((n + 1)(1 - alpha))``-th smallest of theirs. A further harmless signal is exchangeable with them, so with
    a probability of at most `alpha` it is ever stopped, at whichever step, for any distribution of signals. The
    probability is over the new signal and over the draw of the calibration signals together; the rate that one
    calibration achieves scatters about its mean as `false_positive_low_` and `false_positive_high_` say. It holds
    for prompts like those of the calibration.

    Parameters
    ----------
    alpha : float, default=0.01
        Highest probability with which a harmless generation may ever be stopped.
    side : {"both", "high"}, default="both"
        "high" counts high values and means alone, for numbers of which only high ones are suspect, such as
        `DirectionGuard.place_errors`; the signal is strange on either side.
    least_tail : float, default=0.01
        Shortest that a tail is taken to be. A signal at its limit of 0 or 1 hardly moves in training, and the
        smallest movement would count as a great one.

    Attributes
    ----------
    threshold_ : float
        Score above which a generation is stopped; `offset_` is its negative.
    calibrated_ : bool
        Whether the threshold comes from held-out signals. Only then does the bound hold.
    n_calibration_ : int
        Held-out signals behind the threshold, 0 without calibration.
    false_positive_low_, false_positive_high_ : float
        95% interval for the rate at which this very threshold stops harmless generations, from its distribution
        Beta(n + 1 - k, k), the threshold being the k-th smallest score; 0 and 1 without calibration.
    usual_ : Usual
        Median and tails of the features of harmless signals at each step.
    n_features_in_ : int
        T, the number of steps.
    provenance_ : Provenance or None
        What the training signals were made from. A `Signal` made otherwise is refused.

    Examples
    --------
    >>> import numpy as np
    >>> from demur.guards import StreamingGuard
    >>> rng = np.random.default_rng(0)
    >>> harmless = 0.9 + 0.03 * rng.standard_normal((500, 32))
    >>> guard = StreamingGuard(alpha=0.05).fit(harmless[:300], calibration=harmless[300:])
    >>> falling = np.r_[np.full(10, 0.9), np.linspace(0.8, 0.1, 22)]
    >>> guard.stops([np.full(32, 0.9), falling])
    array([ 0, 12])
    >>> watch = guard.watch(batch=1)
    >>> [bool(watch.update([sigma])[0]) for sigma in falling[:14]].index(True) + 1
    12
    """

    _kind = "streaming-guard"

    def __init__(self, alpha: float = 0.01, *, side: str = "both", least_tail: float = 0.01) -> None:
        self.alpha = alpha
        self.side = side
        self.least_tail = least_tail

    def calibrate(self, X: ArrayLike) -> StreamingGuard:
        """Set the threshold on held-out harmless signals `[prompts, steps]`, see the class.

        Raises `InputError` for fewer than ``1 / alpha - 1`` of them.
        """
        return super().calibrate(X)

    def step_scores(self, X: ArrayLike) -> Floats:
        """The score of every step, from the signal up to there, float64 `[prompts, steps]`; raises as `errors`."""
        return self._scores(self._checked(X))

    def stops(self, X: ArrayLike) -> NDArray[np.int_]:
        """The step, counted from 1, at which each generation would be stopped; 0 where it never is."""
        over = ~(self.step_scores(X) <= self.threshold_)  # what cannot be compared is stopped
        return np.where(over.any(axis=1), over.argmax(axis=1) + 1, 0)

    def steps_saved(self, X: ArrayLike) -> StepsSaved:
        """How many of these generations would be stopped, and how many steps never made."""
        stops = self.stops(X)
        stopped, steps = stops[stops > 0], self.n_features_in_
        return StepsSaved(len(stops), len(stopped), len(stops) * steps, int((steps - stopped).sum()))

    def watch(self, batch: int) -> Watch:
        """Follow `batch` generations while they are made; agrees with `step_scores` and `stops` to the last bit."""
        check_is_fitted(self)
        return Watch(self.usual_, self.threshold_, batch)

    def _require_watched(self, source: Shareable) -> None:
        made = self.provenance_
        if not isinstance(source, Anchors | LinearGuard):
            raise InputError(f"source is a {type(source).__name__}; expected the anchors or the guard that is watched")
        if made is None:
            raise InputError("the streaming guard does not know what it watches; fit it on signals of a recording")
        theirs = source.describe(made, made.layers[0]) if isinstance(source, Anchors) else source.describe(made)
        require_comparable(made, theirs, ("the streaming guard", "its source"))

    def _check_parameters(self) -> None:
        require_share("alpha", self.alpha, 0.01)
        if self.side not in ("both", "high"):
            raise InputError(f"side is {self.side!r}; expected 'both' or 'high'.")
        if not 0 < self.least_tail < np.inf:
            raise InputError(f"least_tail is {self.least_tail}; expected a finite number above 0, such as 0.01.")

    def _learn(self, values: Floats) -> None:
        beginnings = Beginnings(len(values))
        features = np.stack([beginnings.add(sigma_t) for sigma_t in values.astype(np.float64).T])
        low, centre, high = np.quantile(features, (_TAIL, 0.5, 1 - _TAIL), axis=2)  # [steps, features] each
        below, above = (np.maximum(tail, self.least_tail) for tail in (centre - low, high - centre))
        below, above = (
            np.where(free, np.inf, tail) for free, tail in zip(self._unbounded(), (below, above), strict=True)
        )
        self.usual_ = Usual(centre, below, above)

    def _unbounded(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which features, `[features]`, cannot be too low, and which not too high."""
        movement, high = np.array(FEATURES) == "movement", self.side == "high"
        return movement | high, movement & high

    def _scores(self, values: Floats) -> Floats:
        watch = Watch(self.usual_, np.inf, len(values))
        scores = np.empty(values.shape)
        for step, sigma_t in enumerate(values.T):
            watch.update(sigma_t)
            scores[:, step] = watch.scores
        return scores

    def _errors(self, values: Floats) -> Floats:
        highest: Floats = self._scores(values).max(axis=1)
        return highest

    def _allowed(self) -> float:
        return float(self.alpha)

    def _uncalibrated(self, errors: Floats) -> float:
        return float(np.quantile(errors, 1 - self.alpha))

    def _calibrated(self, errors: Floats) -> tuple[float, float, float]:
        return conformal_threshold(errors, self.alpha)

    def _state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        return dict(vars(self.usual_)), {}

    def _restore(self, arrays: Mapping[str, NDArray[Any]], learned: Mapping[str, Any]) -> None:
        centre = require_array(arrays, "centre", None, len(FEATURES))
        tails = [require_array(arrays, name, *centre.shape, above=0, infinite=True) for name in ("below", "above")]
        for tail, unbounded in zip(tails, self._unbounded(), strict=True):
            if not (np.isinf(tail) == unbounded).all():
                raise ValueError("tails are infinite where they must not be, or finite where they must")
        self.usual_ = Usual(centre, *tails)
        self.n_features_in_ = len(centre)
