"""SRI Guard: an autoencoder that has only seen harmless signals flags what it cannot reconstruct.

In: signals `[prompts, steps]`. Out: reconstruction errors, scores and verdicts with scikit-learn's signs. Making
the signals, and acting on a verdict, are left to others.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.neural_network import MLPRegressor
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from demur.errors import InputError
from demur.guards.calibration import false_positive_interval, require_enough
from demur.provenance import Provenance, require_comparable
from demur.signal import Signal
from demur.storage import read_arrays, write_arrays

_KIND = "sri-guard"
_HIDDEN = (32, 8, 32)
_TRIAL_EPOCHS = 20
_ROWS_AT_ONCE = 4096
_FITTED = (
    "n_iter_",
    "threshold_",
    "offset_",
    "calibrated_",
    "n_calibration_",
    "false_positive_low_",
    "false_positive_high_",
)


class SRIGuard(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Outlier detector for signals: a T-32-8-32-T autoencoder with ReLU between, trained on harmless ones.

    Source: arXiv 2602.02600, section 4.

    Parameters
    ----------
    quantile : float, default=0.99
        Share of harmless signals that are to pass; the threshold is this quantile of their errors.
    max_iter : int, default=150
        Passes over the training signals.
    learning_rate, batch_size : float, default=0.003; int, default=64
        Of Adam.
    n_init : int, default=5
        Autoencoders begun from different weights; after 20 passes only the best goes on. With eight ReLU units
        in the middle, a single start often leaves most of them dead.
    random_state : int, RandomState instance or None, default=None
        Decides the starts and the order of the batches.

    Attributes
    ----------
    threshold_ : float
        Error above which a signal is flagged; `offset_` is its negative.
    calibrated_ : bool
        Whether the threshold comes from held-out signals. From the training signals it is too low, for the
        autoencoder has seen them: more harmless prompts are flagged than `quantile` says.
    n_calibration_ : int
        Held-out signals behind the threshold, 0 without calibration.
    false_positive_low_, false_positive_high_ : float
        95% interval for the true rate at which harmless signals are flagged; 0 and 1 without calibration.
    coefs_, intercepts_ : list of ndarray
        Weights `[in, out]` and biases `[out]` of the four layers.
    n_features_in_ : int
        T, the number of steps.
    provenance_ : Provenance or None
        What the training signals were made from. A `Signal` made otherwise is refused.

    Examples
    --------
    >>> import numpy as np
    >>> from demur.guards import SRIGuard
    >>> rng = np.random.default_rng(0)
    >>> harmless = 0.9 + 0.03 * rng.standard_normal((300, 32))
    >>> guard = SRIGuard(random_state=0, max_iter=30).fit(harmless[:200], calibration=harmless[200:])
    >>> guard.predict([np.full(32, 0.9), np.linspace(0.9, 0.1, 32)])
    array([ 1, -1])
    """

    def __init__(
        self,
        quantile: float = 0.99,
        *,
        max_iter: int = 150,
        learning_rate: float = 0.003,
        batch_size: int = 64,
        n_init: int = 5,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.quantile = quantile
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.n_init = n_init
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None, *, calibration: ArrayLike | None = None) -> SRIGuard:
        """Train on harmless signals, and calibrate where held-out ones are given.

        X : `[prompts, steps]`. y : ignored. calibration : see `calibrate`; without it the threshold comes
        from the training errors, which is optimistic.
        """
        self._check_parameters()
        values = self._validated(X, reset=True)
        self.provenance_: Provenance | None = X.provenance if isinstance(X, Signal) else None
        net = self._train(values.astype(np.float64))
        self.coefs_, self.intercepts_, self.n_iter_ = list(net.coefs_), list(net.intercepts_), int(net.n_iter_)
        self.calibrated_, self.n_calibration_ = False, 0
        self.false_positive_low_, self.false_positive_high_ = 0.0, 1.0
        self._set_threshold(self._errors(values))
        return self if calibration is None else self.calibrate(calibration)

    def calibrate(self, X: ArrayLike) -> SRIGuard:
        """Set the threshold to the quantile of the errors on held-out harmless signals `[prompts, steps]`.

        Raises `InputError` for fewer than 20 signals; warns where they are too few for the quantile.
        """
        errors = self.errors(X)
        require_enough(len(errors), self.quantile)
        self._set_threshold(errors)
        self.calibrated_, self.n_calibration_ = True, len(errors)
        self.false_positive_low_, self.false_positive_high_ = false_positive_interval(len(errors), self.quantile)
        return self

    def errors(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        """Squared L2 reconstruction error of each signal, summed over its steps, `[prompts]`.

        Raises `ProvenanceError` for a `Signal` of another model, sampler or layer than the guard's.
        """
        check_is_fitted(self)
        if isinstance(X, Signal):
            require_comparable(self.provenance_, X.provenance, ("the guard", "the signal"))
        return self._errors(self._validated(X, reset=False))

    def score_samples(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        """The negative of `errors`: higher is more normal."""
        return -self.errors(X)

    def decision_function(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        """`score_samples` less `offset_`: below 0 a signal is flagged."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int_]:
        """+1 for a normal signal, -1 for a flagged one."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to one safetensors file; `load` reads it back. A random_state that is no integer is not kept."""
        check_is_fitted(self)
        parameters = {name: v.item() if isinstance(v, np.generic) else v for name, v in self.get_params().items()}
        if not isinstance(parameters["random_state"], int):
            parameters["random_state"] = None
        arrays = {f"coefs.{i}": weights for i, weights in enumerate(self.coefs_)}
        arrays |= {f"intercepts.{i}": biases for i, biases in enumerate(self.intercepts_)}
        header = {
            "kind": _KIND,
            "parameters": parameters,
            "fitted": {name: getattr(self, name) for name in _FITTED},
            "feature_names": [str(name) for name in getattr(self, "feature_names_in_", ())],
            "provenance": self.provenance_.to_dict() if self.provenance_ else None,
        }
        write_arrays(path, arrays, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SRIGuard:
        """Read what `save` wrote; `InputError` names the file where it cannot be used."""
        arrays, header = read_arrays(path, _KIND)
        layers = range(len(_HIDDEN) + 1)
        try:
            guard = cls(**header["parameters"])
            guard.coefs_, guard.intercepts_ = (
                [arrays[f"{name}.{i}"] for i in layers] for name in ("coefs", "intercepts")
            )
            for name in _FITTED:
                setattr(guard, name, header["fitted"][name])
            guard.n_features_in_ = guard.coefs_[0].shape[0]
            if header["feature_names"]:
                guard.feature_names_in_ = np.array(header["feature_names"], dtype=object)
            made = header["provenance"]
            guard.provenance_ = Provenance.from_dict(made) if made else None
            guard._errors(np.zeros((1, guard.n_features_in_)))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: its header and arrays do not fit ({error}); save the guard again.") from error
        return guard

    def _check_parameters(self) -> None:
        if not 0 < self.quantile < 1:
            raise InputError(f"quantile is {self.quantile}; expected a number between 0 and 1, such as 0.99.")
        for name in ("max_iter", "batch_size", "n_init"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1.")

    def _validated(self, X: ArrayLike, *, reset: bool) -> NDArray[np.floating[Any]]:
        try:
            values: NDArray[np.floating[Any]] = validate_data(self, X, dtype=[np.float64, np.float32], reset=reset)
        except ValueError as error:
            raise InputError(f"signals [prompts, steps] that cannot be used: {error}") from error
        return values

    def _train(self, values: NDArray[np.float64]) -> Any:
        target = values if values.shape[1] > 1 else values.ravel()  # scikit-learn's shape for one output
        seeds = check_random_state(self.random_state).randint(2**31 - 1, size=self.n_init)
        nets = [self._begin(len(values), int(seed)) for seed in seeds]
        trial = min(_TRIAL_EPOCHS, self.max_iter)
        for net in nets:
            for _ in range(trial):
                net.partial_fit(values, target)
        best = min(nets, key=lambda net: net.loss_)
        for _ in range(self.max_iter - trial):
            best.partial_fit(values, target)
        return best

    def _begin(self, rows: int, seed: int) -> Any:
        return MLPRegressor(
            hidden_layer_sizes=_HIDDEN,
            alpha=0.0,
            learning_rate_init=self.learning_rate,
            batch_size=min(self.batch_size, rows),
            random_state=seed,
        )

    def _errors(self, values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        layers = zip(self.coefs_, self.intercepts_, strict=True)
        weights = [(w.astype(values.dtype), b.astype(values.dtype)) for w, b in layers]
        found = np.empty(len(values), dtype=values.dtype)
        for start in range(0, len(values), _ROWS_AT_ONCE):
            rows = values[start : start + _ROWS_AT_ONCE]
            hidden = rows
            for w, b in weights[:-1]:
                hidden = np.maximum(hidden @ w + b, 0)
            rest = rows - (hidden @ weights[-1][0] + weights[-1][1])
            found[start : start + _ROWS_AT_ONCE] = np.einsum("nt,nt->n", rest, rest)
        return found

    def _set_threshold(self, errors: NDArray[np.floating[Any]]) -> None:
        self.threshold_ = float(np.quantile(errors, self.quantile))
        self.offset_ = -self.threshold_
