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
from demur.guards.streaming.watch import FEATURES, Beginnings, Evidence, Usual, Watch
from demur.guards.validity import require_array
from demur.provenance import require_comparable
from demur.sharing import Shareable
from demur.signal import Anchors, Signal

_TAIL = 0.025
_FEWEST = 40
"""Fewest training signals that say what is usual at a look: one of forty lies beyond a tail."""


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

    Answers of whole length are watched at their looks (`demur.looks`), and an answer that ends early has fewer of them:
    a `Signal` with `lengths`, such as `LinearGuard.place_errors` makes of looks, is judged no further than it goes. The
    highest score is then taken over the looks that an answer has, in the calibration as later, so the promise holds
    over all looks of answers of any length. A look that fewer than 40 training signals reached is compared with what
    was usual at the look before.

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

    at_least, of_last : int, default=1
        Evidence: a generation is stopped where at least `at_least` of its last `of_last` steps score above the
        threshold. The score of a step then is the highest but `at_least` - 1 of the last `of_last`, so one step that
        is far out by chance raises the threshold no more. The promise is the same.

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

    def __init__(
        self,
        alpha: float = 0.01,
        *,
        side: str = "both",
        least_tail: float = 0.01,
        at_least: int = 1,
        of_last: int = 1,
    ) -> None:
        self.alpha = alpha
        self.side = side
        self.least_tail = least_tail
        self.at_least = at_least
        self.of_last = of_last

    def calibrate(self, X: ArrayLike, kinds: ArrayLike | None = None) -> StreamingGuard:
        """Set the threshold on held-out harmless signals `[prompts, steps]`, see the class.

        kinds : the kind of each; the promise then is kept for every kind, see `Guard.calibrate`.
        Raises `InputError` for fewer than ``1 / alpha - 1`` of them.
        """
        return super().calibrate(X, kinds)

    def step_scores(self, X: ArrayLike) -> Floats:
        """The score of every step, from the signal up to there, float64 `[prompts, steps]`; raises as `errors`."""
        return self._scores(self._checked(X))

    def stops(self, X: ArrayLike) -> NDArray[np.int_]:
        """The step, counted from 1, at which each generation would be stopped; 0 where it never is.

        Of looks the look, counted from 1; `LinearGuard.steps_of` tells its step.
        """
        over = ~(self.step_scores(X) <= self.threshold_)  # what cannot be compared is stopped
        return np.where(over.any(axis=1), over.argmax(axis=1) + 1, 0)

    def steps_saved(self, X: ArrayLike) -> StepsSaved:
        """How many of these generations would be stopped, and how many steps never made."""
        stops = self.stops(X)
        whole = (
            X.lengths if isinstance(X, Signal) and X.lengths is not None else np.full(len(stops), self.n_features_in_)
        )
        stopped = stops > 0
        return StepsSaved(len(stops), int(stopped.sum()), int(whole.sum()), int((whole - stops)[stopped].sum()))

    def watch(self, batch: int) -> Watch:
        """Follow `batch` generations while they are made; agrees with `step_scores` and `stops` to the last bit."""
        check_is_fitted(self)
        return Watch(self.usual_, self.threshold_, batch, Evidence(self.at_least, self.of_last))

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
        whole = all(isinstance(one, int | np.integer) for one in (self.at_least, self.of_last))
        if not whole or not 1 <= self.at_least <= self.of_last:
            raise InputError(
                f"at_least is {self.at_least} and of_last {self.of_last}; expected whole numbers of at least 1, "
                f"the second no lower than the first."
            )

    def _validated(self, X: ArrayLike, *, reset: bool) -> Floats:
        """X, with NaN behind the end of every signal that is shorter; NaN in X itself is refused."""
        values = super()._validated(X, reset=reset)
        if not isinstance(X, Signal) or X.lengths is None:
            return values
        return np.where(np.arange(values.shape[1]) < X.lengths[:, None], values, np.nan)

    def _learn(self, values: Floats) -> None:
        beginnings, found = Beginnings(len(values)), list[NDArray[np.float64]]()
        for step, sigma_t in enumerate(values.astype(np.float64).T):
            rows = np.flatnonzero(~np.isnan(sigma_t))
            features = beginnings.add(sigma_t[rows], rows)
            usual = not step or len(rows) >= _FEWEST or len(rows) == len(values)
            found.append(np.quantile(features, (_TAIL, 0.5, 1 - _TAIL), axis=1) if usual else found[-1])
        low, centre, high = np.stack(found, axis=1)  # [steps, features] each
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
        watch = Watch(self.usual_, np.inf, len(values), Evidence(self.at_least, self.of_last))
        scores = np.full(values.shape, -np.inf)  # where a signal has ended there is nothing to stop
        for step, sigma_t in enumerate(values.T):
            rows = np.flatnonzero(~np.isnan(sigma_t))
            watch.update(sigma_t[rows], rows)
            scores[rows, step] = watch.scores[rows]
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
