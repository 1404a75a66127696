"""What all guards do with a score: calibrate a threshold on it, compare, save, refuse what was made otherwise.

In: one harmless generation a row. Out: errors, scores and verdicts with scikit-learn's signs. How the score of a
generation is learned and computed is left to each guard.
"""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self
from weakref import WeakSet

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from demur.errors import InputError
from demur.files.arrays import read_arrays, write_arrays
from demur.guards.calibration import false_positive_interval, limits_by_kind, require_enough
from demur.guards.inputs import one_each, require_arrays, require_no_second_signals, require_share
from demur.guards.validity import require_sorted, require_threshold
from demur.looks import Looks
from demur.plugins import Registry
from demur.provenance import Provenance, require_comparable
from demur.sharing import Shareable
from demur.signal import Signal

Floats = NDArray[np.floating[Any]]

_FITTED = ("threshold_", "offset_", "calibrated_", "n_calibration_", "false_positive_low_", "false_positive_high_")
_ERRORS = "calibration_errors"
"""The array of a file that holds the errors of the calibration, beside what the guard has learned."""

_WARNED: WeakSet[Guard] = WeakSet()
"""Guards that have said that they are not calibrated; kept outside of them, as using a guard does not change it."""


GUARDS: Registry[type[Guard]] = Registry("guard")
"""Every guard by the kind that its files name; a class with a `_kind` puts itself here."""


class Guard(OutlierMixin, BaseEstimator, Shareable, ABC):  # type: ignore[misc]
    """An outlier detector with a threshold set on held-out harmless generations, and a file format.

    A guard says how it learns (`_learn`), what its errors are (`_errors`) and which arrays and plain values hold
    all it has learned (`_state`, `_restore`); the parameters are those of its constructor.
    """

    _kind: ClassVar[str]
    """What files of this guard call it; another than those of all other guards."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "_kind" in vars(cls):
            GUARDS.register(cls._kind)(cls)

    @abstractmethod
    def _learn(self, values: Floats) -> None:
        """Learn from the checked training generations."""

    @abstractmethod
    def _errors(self, values: Floats) -> Floats:
        """One error a generation, `[prompts]`, higher is stranger."""

    @abstractmethod
    def _state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """All that was learned: arrays, and plain values for the JSON header."""

    @classmethod
    def _read_parameters(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of the constructor, from the plain values that a file holds."""
        return dict(plain)

    @abstractmethod
    def _restore(self, arrays: Mapping[str, NDArray[Any]], learned: Mapping[str, Any]) -> None:
        """The inverse of `_state`; sets `n_features_in_` too."""

    def _check_parameters(self) -> None:
        """Raise `InputError` for parameters out of range; more are checked by the guards themselves."""
        require_share("quantile", self.quantile, 0.99)

    def fit(self, X: ArrayLike, y: object = None, *, calibration: ArrayLike | None = None) -> Self:
        """Train on harmless generations, and calibrate where held-out ones are given.

        X : see the class. y : ignored, and refused where it holds signals. calibration : see `calibrate`; without it
        the threshold comes from the training errors, which is optimistic, and the guard says so when it is used.
        """
        require_no_second_signals(y)
        self._check_parameters()
        require_arrays(X)
        values = self._validated(X, reset=True)
        self.provenance_: Provenance | None = X.provenance if isinstance(X, Signal) else None
        self._learn(values)
        return self._limited(values, calibration)

    def _limited(self, values: Floats, calibration: ArrayLike | None) -> Self:
        """Set the threshold, once learned, by the harmless training generations or held-out ones."""
        self.calibrated_, self.n_calibration_ = False, 0
        self.kinds_: dict[str, dict[str, float]] = {}
        self.calibration_errors_: Floats | None = None
        self.false_positive_low_, self.false_positive_high_ = 0.0, 1.0
        self._set_threshold(self._uncalibrated(self._errors(values)))
        return self if calibration is None else self.calibrate(calibration)

    def calibrate(self, X: ArrayLike, kinds: ArrayLike | None = None) -> Self:
        """Set the threshold from the errors on held-out harmless generations, shaped like those of `fit`.

        It is their `quantile`. kinds : the kind of each; the threshold then is the highest of the conformal limits of
        all kinds (`kinds_`), so that of every kind at most the promised share of further harmless generations is
        flagged, or 1 / (n + 1) where a kind has too few, n, for that. Raises `InputError` for fewer than 20 in all, or
        of a kind; warns where they are too few for the quantile.
        """
        errors = self.errors(X)
        threshold, low, high = self._calibrated(errors)
        self.kinds_ = {}
        if kinds is not None:
            self.kinds_ = limits_by_kind(errors, one_each("kinds", kinds, len(errors)), self._allowed())
            threshold = max(limit["limit"] for limit in self.kinds_.values())
        self._set_threshold(threshold)
        self.calibration_errors_ = np.sort(errors)
        self.calibrated_, self.n_calibration_ = True, len(errors)
        self.false_positive_low_, self.false_positive_high_ = low, high
        return self

    def errors(self, X: ArrayLike) -> Floats:
        """How strange each generation is, `[prompts]`; what it measures, the class says.

        Raises `ProvenanceError` for a `Signal` of another model, sampler, layer or anchors than the guard's.
        """
        return self._errors(self._checked(X))

    def score_samples(self, X: ArrayLike) -> Floats:
        """The negative of `errors`: higher is more normal."""
        return -self.errors(X)

    def decision_function(self, X: ArrayLike) -> Floats:
        """`score_samples` less `offset_`: below 0 a generation is flagged."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int_]:
        """+1 for a normal generation, -1 for a flagged one, and for one whose error is not a number.

        Warns once where the guard was never calibrated.
        """
        check_is_fitted(self)
        self._warn_uncalibrated()
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to one safetensors file; `load` reads it back. A random_state that is no integer is not kept."""
        check_is_fitted(self)
        self._warn_uncalibrated()
        parameters = _plain(self.get_params())
        if not isinstance(parameters.get("random_state", 0), int):
            parameters["random_state"] = None
        arrays, learned = self._state()
        if (errors := getattr(self, "calibration_errors_", None)) is not None:
            arrays = {**arrays, _ERRORS: errors}
        header = {
            "kind": self._kind,
            "parameters": parameters,
            "fitted": {**{name: getattr(self, name) for name in _FITTED}, **learned},
            "kinds": getattr(self, "kinds_", {}),
            "feature_names": [str(name) for name in getattr(self, "feature_names_in_", ())],
            "provenance": self.provenance_.to_dict() if self.provenance_ else None,
        }
        write_arrays(path, arrays, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, allow_unverified: bool = False) -> Self:
        """Read what `save` wrote; `InputError` names the file where it cannot be used.

        allow_unverified : read files of demur 0.1 too, which carry no hash.
        """
        arrays, header = read_arrays(path, cls._kind, allow_unverified=allow_unverified)
        try:
            if not isinstance(header["parameters"], Mapping):
                raise TypeError("the parameters are no object")
            guard = cls(**cls._read_parameters(header["parameters"]))
            guard._check_parameters()
            require_threshold(header["fitted"])
            for name in _FITTED:
                setattr(guard, name, header["fitted"][name])
            guard.kinds_ = dict(header.get("kinds", {}))  # files of before have neither these nor errors
            guard.calibration_errors_ = require_sorted(arrays.pop(_ERRORS, None), guard.n_calibration_)
            guard._restore(arrays, header["fitted"])
            if header["feature_names"]:
                guard.feature_names_in_ = np.array(header["feature_names"], dtype=object)
            made = header["provenance"]
            guard.provenance_ = Provenance.from_dict(made) if made else None
            guard._require_whole(arrays)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise InputError(f"{path}: its header and arrays do not fit ({error}); save the guard again.") from error
        return guard

    def summary(self) -> dict[str, Any]:
        """What a fitted guard is and was made from, as plain values, to be shown.

        guard, kind; parameters; threshold; model, sampler, layers, prompts, and the versions that took part: None where
        it was fitted on bare arrays; calibrated_on, the number of held-out harmless generations;
        false_positives_allowed, the share that the threshold is set for; false_positives, the ends of a 95% interval
        for the true share, None without calibration; kinds, of a guard with a limit for each kind, what they are.
        """
        check_is_fitted(self)
        made = self.provenance_
        kinds = {"kinds": dict(self.kinds_)} if getattr(self, "kinds_", None) else {}
        return {
            "guard": type(self).__name__,
            "kind": self._kind,
            "parameters": _plain(self.get_params()),
            "threshold": self.threshold_,
            "model": made and made.model,
            "sampler": made and dict(made.sampler),
            "layers": made and list(made.layers),
            "prompts": made and made.count,
            "versions": made and dict(made.versions),
            "calibrated_on": self.n_calibration_,
            "false_positives_allowed": self._allowed(),
            "false_positives": [self.false_positive_low_, self.false_positive_high_] if self.calibrated_ else None,
            **kinds,
        }

    @property
    def shared_kind(self) -> str:
        """What its file is called where it is shared; the kind of the file."""
        return self._kind

    @classmethod
    def _readable(cls) -> Mapping[str, type[Shareable]]:
        return {kind: GUARDS[kind] for kind in GUARDS.names() if issubclass(GUARDS[kind], cls)}

    def _allowed(self) -> float:
        """The share of harmless generations that the threshold is set to flag."""
        return round(1 - float(self.quantile), 12)

    def _require_whole(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Raise `ValueError` unless the arrays are all of this guard's, and its errors numbers."""
        if set(arrays) != set(self._state()[0]):
            raise ValueError(f"the arrays {sorted(arrays)} are not those of a {type(self).__name__}")
        names = getattr(self, "feature_names_in_", None)
        if names is not None and (len(names) != self.n_features_in_ or not all(isinstance(n, str) for n in names)):
            raise ValueError(f"{len(names)} names of {self.n_features_in_} features")
        if not np.isfinite(self._errors(np.zeros(self._shape_of_one()))).all():
            raise ValueError("its errors are not finite")

    def _warn_uncalibrated(self) -> None:
        if not self.calibrated_ and self not in _WARNED:
            _WARNED.add(self)
            warnings.warn(
                f"this {type(self).__name__} was not calibrated on held-out harmless generations: its threshold comes "
                f"from those it was trained on and flags more than it says. Give calibration=... to fit",
                UserWarning,
                stacklevel=3,
            )

    def _shape_of_one(self) -> tuple[int, ...]:
        return 1, self.n_features_in_

    def _checked(self, X: ArrayLike) -> Floats:
        """The values of X, once it is known to be of the kind the guard was fitted on."""
        check_is_fitted(self)
        require_arrays(X)
        if isinstance(X, Signal):
            require_comparable(self.provenance_, X.provenance, ("the guard", "the signal"))
        return self._validated(X, reset=False)

    def _validated(self, X: ArrayLike, *, reset: bool) -> Floats:
        try:
            values: Floats = validate_data(self, X, dtype=[np.float64, np.float32], reset=reset)
        except ValueError as error:
            raise InputError(f"signals [prompts, steps] that cannot be used: {error}") from error
        return values

    def _uncalibrated(self, errors: Floats) -> float:
        """The threshold from the training errors."""
        return float(np.quantile(errors, self.quantile))

    def _calibrated(self, errors: Floats) -> tuple[float, float, float]:
        """The threshold from held-out errors, and an interval for the true false-positive rate."""
        require_enough(len(errors), self.quantile)
        return float(np.quantile(errors, self.quantile)), *false_positive_interval(len(errors), self.quantile)

    def _set_threshold(self, threshold: float) -> None:
        if not np.isfinite(threshold):
            raise InputError(f"the errors give a limit of {threshold}, which nothing exceeds; scale the data down.")
        self.threshold_, self.offset_ = threshold, -threshold


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as plain values, without the types of NumPy."""
    return {name: _plain_value(value) for name, value in values.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, Looks):
        return {"steps": list(value.steps), "window": value.window}
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value
