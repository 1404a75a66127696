"""What guards share that weigh states linearly: a direction a place and layer, and the error along them.

In: states `[prompts, places, layers, width]`, phi at a few steps. Out: errors, of whole generations and place by
place. How the directions are found is left to each guard; recording the states is left to who has the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from demur.errors import InputError
from demur.guards.base import Floats, Guard
from demur.guards.places import Places, count_of, plain, require_places, said, states_of, steps_at
from demur.guards.validity import require_array
from demur.looks import Looks
from demur.provenance import Provenance
from demur.signal import Signal
from demur.signal.sums import RecordingLike


class LinearGuard(Guard):
    """A guard whose error is the mean of projections of states, one a place and layer.

    A guard sets `centre_` and `direction_`, `[places, layers, width]` each, so that the projections of a state's
    difference from the centre have a standard deviation of 1 among harmless training states. It has the parameters
    `quantile` and `places`. Where it stands for the number that a `StreamingGuard` watches, it is its source.
    """

    watched_as: ClassVar[str]
    """What its place errors are called where they are watched."""

    places: Any
    """`Places`; a guard may take less."""
    centre_: NDArray[Any]
    direction_: NDArray[Any]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.estimator_type = None
        tags.target_tags.required = True
        return tags

    def fit_predict(self, X: ArrayLike, y: ArrayLike | None = None, **options: Any) -> NDArray[np.int_]:
        """`fit` and then `predict` on the same generations."""
        return self.fit(X, y, **options).predict(X)

    def _learn(self, values: Floats) -> None:
        """Not used: directions are found in `fit`, which has the labels."""

    def _check_parameters(self) -> None:
        super()._check_parameters()
        require_places(self.places)

    def states(self, recording: RecordingLike) -> Signal:
        """The states of a recording that this guard judges: `states_of` at its places and its training's layers."""
        check_is_fitted(self)
        return states_of(recording, self.places, self.provenance_.layers if self.provenance_ else None)

    def place_errors(self, X: ArrayLike) -> Signal:
        """The error at each place by itself, `[prompts, places]`: with many places, a signal to watch as it comes.

        Of looks `[prompts, looks]`, the higher one of both means, with the lengths of the answers.
        """
        made = X.provenance if isinstance(X, Signal) else None
        errors = self._by_look(_projected(self._checked(X), self.centre_, self.direction_))
        return Signal(errors, made and self.describe(made), X.lengths if isinstance(X, Signal) else None)

    def place_error(self, phi: ArrayLike, place: int | NDArray[np.integer[Any]]) -> Floats:
        """The error at one place, of all or of each, counted from 0, of states `[n, layers, width]`.

        It equals that of `place_errors`.
        """
        if not hasattr(self, "centre_"):  # scikit-learn's own check takes longer than the error
            check_is_fitted(self)
        values = np.asarray(phi)
        if values.shape[1:] != self.centre_.shape[1:]:
            raise InputError(
                f"states of shape {list(values.shape)}; expected [n, {str(self.centre_.shape[1:])[1:-1]}]."
            )
        places = np.broadcast_to(place, len(values))
        if len(values) and (places == places[0]).all():
            places = places[:1]
        return np.asarray(_projected(values, self.centre_[places], self.direction_[places]), dtype=np.float32)

    def look_error(self, means: Sequence[ArrayLike], look: int | NDArray[np.integer[Any]]) -> Floats:
        """The error at one look, of all or of each, counted from 0, of states `[n, layers, width]` a mean.

        It equals that of `place_errors`.
        """
        errors = [self.place_error(states, look * len(means) + place) for place, states in enumerate(means)]
        highest: Floats = np.max(errors, axis=0)
        return highest

    def errors(self, X: ArrayLike) -> Floats:
        """How far each generation lies out, `[prompts]`: the mean over places, or the highest of the looks it has.

        Raises `ProvenanceError` for states of another model, sampler or layers than the guard's.
        """
        if not isinstance(self.places, Looks):
            return super().errors(X)
        found = self.place_errors(X)
        errors: Floats = np.where(_is_made(found), np.asarray(found), -np.inf).max(axis=1)
        return errors

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
        places = said(self.places) if isinstance(self.places, Looks) else plain(self.places)
        content = hashlib.sha256(repr((places, self.centre_.shape)).encode())
        for array in (self.centre_, self.direction_):
            content.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return content.hexdigest()

    def describe(self, made: Provenance) -> Provenance:
        """The provenance of the errors that this guard finds at each place of states of provenance `made`."""
        layers = self.provenance_.layers if self.provenance_ else made.layers
        return replace(made, layers=layers, anchors=self.fingerprint)

    def _errors(self, values: Floats) -> Floats:
        projected = _projected(values, self.centre_, self.direction_)
        errors: Floats = (
            self._by_look(projected).max(axis=1) if isinstance(self.places, Looks) else projected.mean(axis=1)
        )
        return errors

    def _by_look(self, errors: Floats) -> Floats:
        """Errors `[n, places]` as they are, of looks the higher one of both means `[n, looks]`."""
        if not isinstance(self.places, Looks):
            return errors
        highest: Floats = errors.reshape(len(errors), -1, self.places.means).max(axis=2)
        return highest

    def _validated(self, X: ArrayLike, *, reset: bool) -> Floats:
        """X as `[prompts, places, layers, width]`; two axes are states of one place and layer."""
        shape = np.shape(X)
        self._require_places(X)
        flat = len(shape) < 3 and (reset or self.centre_.shape[:2] == (1, 1))
        if flat:
            return super()._validated(X, reset=reset)[:, None, None]
        if len(shape) != 4 or (not reset and shape[1:] != self.centre_.shape):
            expected = "[prompts, places, layers, width]" if reset else f"[prompts, {str(self.centre_.shape)[1:-1]}]"
            raise InputError(f"states of shape {list(shape)}; expected {expected}, from `states_of`.")
        return super()._validated(np.asarray(X).reshape(shape[0], -1), reset=reset).reshape(shape)

    def _require_places(self, X: ArrayLike) -> None:
        """Refuse states at other places than the guard's, as far as they say where they were taken."""
        shape, looks, count = np.shape(X), _shown(self.places), count_of(self.places)
        made = X.provenance if isinstance(X, Signal) else None
        if made is not None and made.anchors != said(self.places):
            found = made.anchors or "what is no states"
        elif len(shape) == 4 and shape[1] != count:
            found, looks = f"states at {shape[1]} places", f"{count}, {looks}"
        else:
            return
        raise InputError(
            f"{found}; the guard looks at {looks}. Give both the same: states_of(recording, places) and "
            f"{type(self).__name__}(places=places)."
        )

    def _shape_of_one(self) -> tuple[int, ...]:
        return 1, *self.centre_.shape

    def _state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        return {"centre": self.centre_, "direction": self.direction_}, {}

    @classmethod
    def _read_parameters(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        places = plain["places"]  # JSON has neither tuples nor looks
        looks = isinstance(places, Mapping)
        return {**plain, "places": Looks(tuple(places["steps"]), places["window"]) if looks else tuple(places)}

    def _restore(self, arrays: Mapping[str, NDArray[Any]], learned: Mapping[str, Any]) -> None:
        flat = arrays["centre"].shape[:2] == (1, 1)  # fitted on states of one place, whatever places says
        self.centre_ = require_array(arrays, "centre", 1 if flat else count_of(self.places), None, None)
        self.direction_ = require_array(arrays, "direction", *self.centre_.shape)
        self.n_features_in_ = self.centre_.size


def _projected(values: Floats, centre: Floats, direction: Floats) -> Floats:
    """Errors `[...]` of states `[..., layers, width]` along one direction each, or one for all: the mean of layers."""
    offset = (centre * direction).sum(axis=-1)
    projected: Floats = (np.einsum("...lw,...lw->...l", values, direction) - offset).mean(axis=-1)
    return projected


def _is_made(found: Signal) -> NDArray[np.bool_]:
    """Which of the looks `[prompts, looks]` the answers have."""
    looks = np.arange(found.shape[1])
    return np.ones(found.shape, dtype=bool) if found.lengths is None else looks < found.lengths[:, None]


def _shown(places: Places) -> str:
    return said(places) if isinstance(places, Looks) else str(list(places))
