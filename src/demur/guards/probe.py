"""Probe guard: how far a generation lies on the harmful side of linear probes that have seen both labels alike.

In: states `[prompts, places, layers, width]` of harmless and harmful generations. Out: errors. What follows from an
error is the same for all guards; which prompts to fit on is left to `demur.studies.hardening`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.errors import InputError
from demur.guards.base import Floats
from demur.guards.calibration import limits_by_kind
from demur.guards.inputs import labels_of, one_each, require_arrays
from demur.guards.linear import LinearGuard
from demur.guards.places import PLACES, Places
from demur.guards.probes import Joint, carried_over, cell_weights, learn_probes
from demur.looks import Looks
from demur.signal import Signal


class ProbeGuard(LinearGuard):
    """Detector of harmful generations by linear probes, fitted on harmless and harmful ones in the same wrappers.

    At each place and layer an L2-regularised logistic regression tells harmful from harmless states, which are
    standardised by the harmless ones. The error is the mean of the projections, each in standard deviations of the
    harmless training states. Where `groups` say which wrapper or kind a prompt is of, both labels count alike within
    each, so that what a wrapper does to the states is no evidence.

    Parameters
    ----------
    quantile : float, default=0.985
        Share of harmless generations that are to pass.
    places : sequence of float or Looks, default=(0.5, 1.0)
        Where on its way a generation is looked at, as given to `states_of`.
    C : float or sequence of float, default=0.1
        Inverse strength of the regularisation. Of several the one is taken with the highest mean AUROC within groups
        that were left out of the fit one at a time; with `joint` that of one regression on all places and layers.
    joint : bool or "layers", default=False
        Whether one regression is fitted on all places and layers together, and not one at each; with "layers" one on
        the layers of each place. Where a place is judged by itself, as a streaming guard and a guard on looks do, give
        "layers": a regression on all places spreads over them what each of them could tell alone. Of looks the error
        of each place is brought to a standard deviation of 1 among the harmless training states.

    Attributes
    ----------
    threshold_, offset_, calibrated_, n_calibration_, false_positive_low_, false_positive_high_, provenance_
        As in `SRIGuard`.
    centre_, direction_ : ndarray
        Mean of the harmless states, and what a state's difference from it is multiplied with,
        `[places, layers, width]` each.
    C_ : float
        The regularisation that was used.
    carried_over_ : dict
        Of every C that was tried, the mean AUROC within the groups left out; empty where there was no choice.
    kinds_ : dict
        Of every kind that was calibrated on, its count, limit, and the share of further harmless generations of this
        kind that may exceed the limit; empty where kinds were not given.
    n_features_in_ : int
        Numbers in the states of a generation.

    Examples
    --------
    >>> import numpy as np
    >>> from demur.guards import ProbeGuard
    >>> rng = np.random.default_rng(0)
    >>> states = rng.standard_normal((600, 2, 1, 8))
    >>> y = np.arange(600) % 2
    >>> states[y == 1, ..., 0] += 3
    >>> guard = ProbeGuard().fit(states[:400], y[:400], calibration=states[400:][y[400:] == 0])
    >>> float((guard.predict(states[y == 1]) == -1).mean()) > 0.9
    True
    """

    _kind = "probe-guard"
    watched_as = "probe"

    def __init__(
        self,
        quantile: float = 0.985,
        *,
        places: Places = PLACES,
        C: float | Sequence[float] = 0.1,
        joint: Joint = False,
    ) -> None:
        self.quantile = quantile
        self.places = places
        self.C = C
        self.joint = joint

    def fit(
        self,
        X: ArrayLike,
        y: Any = None,
        *,
        groups: ArrayLike | None = None,
        calibration: ArrayLike | None = None,
    ) -> Self:
        """Fit the probes, and calibrate where held-out harmless states are given.

        X : states from `states_of`, `[prompts, places, layers, width]`, or of one place and layer `[prompts, width]`.
        y : 0 for a harmless generation, 1 for a harmful one; of several levels the lowest is harmless.
        groups : the wrapper or kind of each; see the class.
        calibration : as for `calibrate`; without it the threshold comes from the training errors, which is optimistic.
        """
        self._check_parameters()
        require_arrays(X)
        values = self._validated(X, reset=True)
        harmful = labels_of(y, len(values))
        kinds = np.zeros(len(values)) if groups is None else one_each("groups", groups, len(values))
        self.provenance_ = X.provenance if isinstance(X, Signal) else None
        choices = self._choices()
        several = len(choices) > 1
        self.carried_over_ = carried_over(values, harmful, kinds, choices, joint=bool(self.joint)) if several else {}
        self.C_ = max(self.carried_over_, key=self.carried_over_.__getitem__) if several else choices[0]
        self.kinds_: dict[str, dict[str, float]] = {}
        weights = cell_weights(harmful, kinds)
        [(self.centre_, self.direction_)] = learn_probes(values, harmful, weights, [self.C_], joint=self.joint)
        if self.joint and isinstance(self.places, Looks):
            self._scale_places(values[~harmful])
        return self._limited(values[~harmful], calibration)

    def calibrate(self, X: ArrayLike, kinds: ArrayLike | None = None) -> Self:
        """Set the threshold from the errors on held-out harmless generations, shaped like those of `fit`.

        kinds : the kind of each; the threshold then is the highest of the conformal limits of all kinds, so that of
        every kind at most 1 - `quantile` of further harmless generations are flagged, or 1 / (n + 1) where a kind has
        too few, n, for that. Raises `InputError` for fewer than 20 in all, or of a kind.
        """
        super().calibrate(X)
        self.kinds_ = {}
        if kinds is not None:
            errors = self.errors(X)
            self.kinds_ = limits_by_kind(errors, one_each("kinds", kinds, len(errors)), 1 - self.quantile)
            self._set_threshold(max(limit["limit"] for limit in self.kinds_.values()))
        return self

    def _scale_places(self, harmless: Floats) -> None:
        """Bring all places to one scale: of looks the highest counts, so none may scatter more than the others."""
        for place in range(harmless.shape[1]):
            spread = float(self.place_error(harmless[:, place], place).std())
            self.direction_[place] /= max(spread, 1e-12)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not all(isinstance(one, int | float) and 0 < one < np.inf for one in self._choices()):
            raise InputError(f"C is {self.C!r}; expected a finite number above 0, such as 0.1, or several.")
        if self.joint not in (False, True, "layers"):
            raise InputError(f"joint is {self.joint!r}; expected True, False or 'layers'.")

    def _choices(self) -> list[float]:
        """The values of C to choose among, at least one."""
        choices = np.atleast_1d(np.asarray(self.C)).tolist()
        if not choices:
            raise InputError("C is empty; give a finite number above 0, such as 0.1, or several.")
        return list(choices)

    def _state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        arrays, _ = super()._state()
        carried = [[choice, area] for choice, area in self.carried_over_.items()]
        return arrays, {"C_": self.C_, "carried_over_": carried, "kinds_": self.kinds_}

    def _restore(self, arrays: Mapping[str, NDArray[Any]], learned: Mapping[str, Any]) -> None:
        super()._restore(arrays, learned)
        self.C_, self.kinds_ = float(learned["C_"]), dict(learned["kinds_"])
        self.carried_over_ = {float(choice): float(area) for choice, area in learned["carried_over_"]}
