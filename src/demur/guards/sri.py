"""SRI Guard: an autoencoder that has only seen harmless signals flags what it cannot reconstruct.

In: signals `[prompts, steps]`. Out: reconstruction errors. What follows from an error is the same for all guards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neural_network import MLPRegressor
from sklearn.utils import check_random_state

from demur.errors import InputError
from demur.guards.base import Floats, Guard
from demur.guards.validity import require_array

_HIDDEN = (32, 8, 32)
_TRIAL_EPOCHS = 20
_ROWS_AT_ONCE = 4096


class SRIGuard(Guard):
    """Outlier detector for signals: a T-32-8-32-T autoencoder with ReLU between, trained on harmless ones.

    The error of a signal is the squared L2 error of its reconstruction, summed over its steps.
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

    _kind = "sri-guard"

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

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name in ("max_iter", "batch_size", "n_init"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1.")

    def _learn(self, values: Floats) -> None:
        net = self._train(values.astype(np.float64))
        self.coefs_, self.intercepts_, self.n_iter_ = list(net.coefs_), list(net.intercepts_), int(net.n_iter_)

    def _state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        arrays = {f"coefs.{i}": weights for i, weights in enumerate(self.coefs_)}
        arrays |= {f"intercepts.{i}": biases for i, biases in enumerate(self.intercepts_)}
        return arrays, {"n_iter_": self.n_iter_}

    def _restore(self, arrays: Mapping[str, NDArray[Any]], learned: Mapping[str, Any]) -> None:
        layers = range(len(_HIDDEN) + 1)
        steps = self.n_features_in_ = len(arrays["coefs.0"])
        sizes = (steps, *_HIDDEN, steps)
        self.coefs_ = [require_array(arrays, f"coefs.{i}", *sizes[i : i + 2]) for i in layers]
        self.intercepts_ = [require_array(arrays, f"intercepts.{i}", sizes[i + 1]) for i in layers]
        self.n_iter_ = learned["n_iter_"]

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

    def _errors(self, values: Floats) -> Floats:
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
