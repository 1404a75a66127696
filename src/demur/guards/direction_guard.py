"""Direction guard: how far a generation lies towards harmful requests, in units of how harmless ones scatter.

In: states `[prompts, places, layers, width]`, phi at a few steps. Out: errors. What follows from an error is the same
for all guards; recording the states is left to who has the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from demur.anchor_sums import RecordingLike
from demur.errors import InputError
from demur.guards.guard import Floats, Guard
from demur.guards.inputs import require_arrays, require_no_second_signals
from demur.guards.validity import require_array
from demur.provenance import Provenance, require_comparable
from demur.signal import Signal

PLACES = (0.5, 1.0)
"""Where on its way a generation is looked at, in shares of its steps."""


def steps_at(places: Sequence[float], steps: int) -> tuple[int, ...]:
    """The steps, counted from 1, that lie at these shares of `steps`, rounded up: 1 is the last one."""
    return tuple(max(1, int(np.ceil(place * steps - 1e-9))) for place in places)


def states_of(
    recording: RecordingLike, places: Sequence[float] = PLACES, layers: Sequence[int] | None = None
) -> Signal:
    """Phi of every prompt at a few steps, float32 `[prompts, places, layers, width]`, which knows its recording.

    places : ascending shares of the steps, above 0 and at most 1; see `steps_at`.
    layers : indices of layers that the recording holds, in the order wanted; by default all of them.
    """
    _require_shares(places)
    made = recording.provenance
    layers = made.layers if layers is None else tuple(layers)
    if missing := [layer for layer in layers if layer not in made.layers]:
        raise InputError(
            f"the recording holds layers {list(made.layers)}, not layer {missing[0]}; record with the layers "
            f"{list(layers)}."
        )
    held = [made.layers.index(layer) for layer in layers]
    states = np.empty(0, dtype=np.float32)
    for rows, phi in recording.phi_batches():
        chosen = phi[:, [step - 1 for step in steps_at(places, phi.shape[1])]][:, :, held]
        if not states.size:
            states = np.full((len(recording.table), *chosen.shape[1:]), np.nan, dtype=np.float32)
        states[rows] = chosen
    return Signal(states, replace(made, layers=layers, anchors=_said(places)))


def states_among(states: Signal, held: Sequence[float], places: Sequence[float] = PLACES) -> Signal:
    """Of states at the places `held`, those at `places`: what `states_of` would have read."""
    made = states.provenance
    chosen = np.asarray(states)[:, [list(held).index(place) for place in places]]
    return Signal(chosen, made and replace(made, anchors=_said(places)))


def _said(places: Sequence[float]) -> str:
    return f"states at {_plain(places)}"


def _plain(places: Sequence[float]) -> tuple[float, ...]:
    """The places as numbers that are written, read and compared alike, whatever they were given as."""
    return tuple(float(place) for place in places)


def _require_shares(places: Sequence[float]) -> None:
    if not len(places) or not all(0 < place <= 1 for place in places) or not (np.diff(places) > 0).all():
        raise InputError(f"places is {list(places)}; expected ascending shares of the steps, above 0 and at most 1.")


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
    >>> harmless, harmful = rng.standard_normal((2, 300, 2, 1, 8))
    >>> harmful[..., 0] += 3
    >>> guard = DirectionGuard().fit(harmless[:200], harmful=harmful, calibration=harmless[200:])
    >>> float((guard.predict(harmful) == -1).mean()) > 0.9
    True
    """

    _kind = "direction-guard"

    def __init__(self, quantile: float = 0.99, places: Sequence[float] = PLACES) -> None:
        self.quantile = quantile
        self.places = places

    def _check_parameters(self) -> None:
        super()._check_parameters()
        _require_shares(self.places)

    def fit(
        self, X: ArrayLike, y: object = None, *, calibration: ArrayLike | None = None, harmful: ArrayLike | None = None
    ) -> Self:
        """Find the direction, and calibrate where held-out harmless states are given.

        X : states of harmless generations, from `states_of`. harmful : states of generations for plain harmful
        requests, made alike. y : ignored, and refused where it holds states. calibration : see `calibrate`.
        """
        require_no_second_signals(y)
        require_arrays(X)
        if harmful is None:
            raise InputError("no harmful generations; give states of plain harmful requests as harmful=…")
        if isinstance(X, Signal) and isinstance(harmful, Signal):
            require_comparable(X.provenance, harmful.provenance, ("the harmless states", "the harmful states"))
        self._check_parameters()
        self._require_places(X)
        if np.shape(X)[1:] != np.shape(harmful)[1:]:
            raise InputError(f"states of shape {np.shape(X)[1:]} and, harmful, {np.shape(harmful)[1:]}; expected one.")
        self._harmful_mean = self._validated(harmful, reset=True).mean(axis=0, dtype=np.float64)
        try:
            return super().fit(X, y, calibration=calibration)
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

    def states(self, recording: RecordingLike) -> Signal:
        """The states of a recording that this guard judges: `states_of` at its places and its training's layers."""
        check_is_fitted(self)
        return states_of(recording, self.places, self.provenance_.layers if self.provenance_ else None)

    def place_errors(self, X: ArrayLike) -> Signal:
        """The error at each place by itself, `[prompts, places]`: with many places, a signal to watch as it comes."""
        made = X.provenance if isinstance(X, Signal) else None
        return Signal(self._projected(self._checked(X)), made and self.describe(made))

    def place_error(self, phi: ArrayLike, place: int) -> Floats:
        """The error at one place, counted from 0, of states `[n, layers, width]`; equals that of `place_errors`."""
        check_is_fitted(self)
        values = np.asarray(phi)
        if values.shape[1:] != self.centre_.shape[1:]:
            raise InputError(
                f"states of shape {list(values.shape)}; expected [n, {str(self.centre_.shape[1:])[1:-1]}]."
            )
        return np.asarray(self._projected(values[:, None], slice(place, place + 1))[:, 0], dtype=np.float32)

    def steps_of(self, stops: ArrayLike, steps: int) -> NDArray[np.int_]:
        """The steps of a generation of `steps` at which the places lie that a streaming guard stopped at; 0 stays 0.

        stops : of `StreamingGuard.stops` on `place_errors`: the place, counted from 1.
        """
        at: NDArray[np.int_] = np.array([0, *steps_at(self.places, steps)])
        found: NDArray[np.int_] = at[np.asarray(stops)]
        return found

    @property
    def fingerprint(self) -> str:
        """A sha256 over places, centre and direction: equal fingerprints give equal errors."""
        check_is_fitted(self)
        content = hashlib.sha256(repr((_plain(self.places), self.centre_.shape)).encode())
        for array in (self.centre_, self.direction_):
            content.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return content.hexdigest()

    def describe(self, made: Provenance) -> Provenance:
        """The provenance of the errors that this guard finds at each place of states of provenance `made`."""
        layers = self.provenance_.layers if self.provenance_ else made.layers
        return replace(made, layers=layers, anchors=self.fingerprint)

    def _errors(self, values: Floats) -> Floats:
        errors: Floats = self._projected(values).mean(axis=1)
        return errors

    def _projected(self, values: Floats, places: slice = slice(None)) -> Floats:
        centre, direction = self.centre_[places], self.direction_[places]
        offset = (centre * direction).sum(axis=2)
        projected: Floats = (np.einsum("nplw,plw->npl", values, direction) - offset).mean(axis=2)
        return projected

    def _validated(self, X: ArrayLike, *, reset: bool) -> Floats:
        shape = np.shape(X)
        self._require_places(X)
        if len(shape) != 4 or (not reset and shape[1:] != self.centre_.shape):
            expected = "[prompts, places, layers, width]" if reset else f"[prompts, {str(self.centre_.shape)[1:-1]}]"
            raise InputError(f"states of shape {list(shape)}; expected {expected}, from `states_of`.")
        return super()._validated(np.asarray(X).reshape(shape[0], -1), reset=reset).reshape(shape)

    def _require_places(self, X: ArrayLike) -> None:
        """Refuse states at other places than the guard's, as far as they say where they were taken."""
        shape, looks = np.shape(X), str(list(self.places))
        made = X.provenance if isinstance(X, Signal) else None
        if made is not None and made.anchors != _said(self.places):
            found = made.anchors or "what is no states"
        elif len(shape) == 4 and shape[1] != len(self.places):
            found, looks = f"states at {shape[1]} places", f"{len(self.places)}, {looks}"
        else:
            return
        raise InputError(
            f"{found}; the guard looks at {looks}. Give both the same: states_of(recording, places) and "
            f"DirectionGuard(places=places)."
        )

    def _shape_of_one(self) -> tuple[int, ...]:
        return 1, *self.centre_.shape

    def _state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        return {"centre": self.centre_, "direction": self.direction_}, {}

    def _restore(self, arrays: Mapping[str, NDArray[Any]], learned: Mapping[str, Any]) -> None:
        self.places = tuple(self.places)  # JSON has no tuples
        self.centre_ = require_array(arrays, "centre", len(self.places), None, None)
        self.direction_ = require_array(arrays, "direction", *self.centre_.shape)
        self.n_features_in_ = self.centre_.size
