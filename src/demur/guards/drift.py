"""Whether a stream of scores still looks like the calibration's.

In: the errors of generations as they come, and the guard that was calibrated. Out: one warning where they look like
others: then the guard's promise of false positives is not known to hold. What to do about it is left to the user.
"""

from __future__ import annotations

import math
import threading
import warnings
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.errors import InputError
from demur.guards.base import Guard

WINDOW = 50
"""Scores that are compared with the calibration's at a time."""
Sides = Literal["two-sided", "less"]

_WATCHES: WeakKeyDictionary[Guard, dict[str, DriftWatch]] = WeakKeyDictionary()
_LOCK = threading.Lock()


class DriftWarning(UserWarning):
    """Scores no longer look like those that the guard was calibrated on."""


@dataclass(frozen=True)
class Drift:
    """What was found: in the `window` scores up to the `seen`-th, the greatest distance between both distributions
    (Kolmogorov-Smirnov), its p-value, and how many of them the guard flags."""

    seen: int
    window: int
    distance: float
    p: float
    flagged: int

    def __str__(self) -> str:
        return (
            f"the last {self.window} scores do not look like those that the guard was calibrated on "
            f"(distance {self.distance:.2f}, p = {self.p:.1g}; {self.flagged} of {self.window} flagged), so its "
            f"promise of false positives may not hold. Likely causes: another system prompt or chat template, another "
            f"dtype or engine, prompts of another kind, or many attacks. Calibrate the guard on harmless prompts as "
            f"they come now"
        )


class DriftWatch:
    """Compares a stream of errors with those of the guard's calibration, window by window, and warns once.

    window : scores that are compared at a time, at least 20. alpha : the highest probability of ever warning, however
        long the stream, while nothing has changed. sides : "less" looks for scores that have become higher alone.

    Each full window is compared by a two-sample Kolmogorov-Smirnov test, the j-th at the level alpha * 6 / (pi j)^2,
    and the levels sum to alpha. What is above the threshold counts as equal, so a generation that was stopped on its
    way counts like one that was followed to its end. A few attacks are no drift: in a window of 50 about a third of
    the scores must have moved to be noticed. Raises `InputError` for a guard that does not hold the errors
    of its calibration; files of before have none.
    """

    def __init__(self, guard: Guard, *, window: int = WINDOW, alpha: float = 0.01, sides: Sides = "two-sided") -> None:
        if window < 20 or not 0 < alpha < 1:
            raise InputError(f"window is {window} and alpha {alpha}; expected at least 20, and between 0 and 1")
        held = getattr(guard, "calibration_errors_", None)
        if held is None:
            raise InputError("the guard does not hold the errors of its calibration; calibrate it again to watch drift")
        self.window, self.alpha, self.sides = window, alpha, sides
        self.threshold = float(guard.threshold_)
        self.drift: Drift | None = None
        self._usual = self._cut(held)
        self._waiting: list[float] = []
        self._seen = self._tests = 0

    def add(self, errors: ArrayLike) -> Drift | None:
        """Take in errors in the order of their coming; what was found, the first time it is, with a `DriftWarning`."""
        for error in self._cut(np.asarray(errors, dtype=np.float64).ravel()).tolist():
            self._waiting.append(error)
            self._seen += 1
            if len(self._waiting) == self.window:
                self._compare()
        return self.drift

    def finish(self) -> Drift | None:
        """Compare what is left of a stream that has ended, where it is at least 20 scores."""
        if len(self._waiting) >= 20:
            self._compare()
        return self.drift

    def _compare(self) -> None:
        from scipy.stats import ks_2samp

        scores, self._waiting = np.array(self._waiting), []
        self._tests += 1
        if self.drift is not None:
            return
        # Higher scores lie below the calibration's in distribution: that is the alternative "less".
        found = ks_2samp(scores, self._usual, alternative=self.sides)
        if found.pvalue < self.alpha * 6 / (math.pi * self._tests) ** 2:
            flagged = int((scores > self.threshold).sum())
            self.drift = Drift(self._seen, len(scores), float(found.statistic), float(found.pvalue), flagged)
            warnings.warn(str(self.drift), DriftWarning, stacklevel=4)

    def _cut(self, errors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Errors with all that is flagged as one value just above the threshold; what is no number is flagged."""
        above = np.nextafter(self.threshold, np.inf)
        return np.where(errors <= self.threshold, errors, above).astype(np.float64)


def drift_of(guard: Guard, sides: Sides = "two-sided") -> DriftWatch | None:
    """The one watch of a guard in this process, made on first use; None for a guard without calibration errors."""
    if getattr(guard, "calibration_errors_", None) is None:
        return None
    with _LOCK:
        watches = _WATCHES.setdefault(guard, {})
        if sides not in watches:
            watches[sides] = DriftWatch(guard, sides=sides)
        return watches[sides]
