"""How unusual the beginning of a signal is, step by step, while the signal still arrives.

In: one value a generation and step. Out: a score a step, and since when it is above a threshold. What is usual
comes from `StreamingGuard`; ending a generation is left to defenses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.errors import InputError

FEATURES = ("value", "mean", "movement")
"""What is looked at after each step: the latest value, and of all values so far the mean and the mean absolute
change from one step to the next."""


class Beginnings:
    """The `FEATURES` of a batch of signals as far as they have arrived."""

    def __init__(self, batch: int) -> None:
        self.step = 0
        self._value = self._sum = self._movement = np.zeros(batch)

    def add(self, value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Take in the next step, `[batch]`; the features with it, `[features, batch]`.

        Works element by element, so that a signal's features are the same to the last bit in every batch.
        """
        if self.step:
            self._movement = self._movement + np.abs(value - self._value)
        self.step += 1
        self._value, self._sum = value, self._sum + value
        return np.stack([value, self._sum / self.step, self._movement / max(1, self.step - 1)])


@dataclass(frozen=True, eq=False)
class Usual:
    """What the features of harmless signals are at each step, all `[steps, features]`.

    centre : their median. below, above : how far the lower and the upper tail lie from it, infinite where a feature
        cannot be too low.
    """

    centre: NDArray[np.float64]
    below: NDArray[np.float64]
    above: NDArray[np.float64]

    def scores(self, step: int, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """The furthest that any of the features `[features, batch]` of this step lies out, in tails, `[batch]`."""
        t = step - 1
        away = features - self.centre[t][:, None]
        out: NDArray[np.float64] = np.maximum(away / self.above[t][:, None], -away / self.below[t][:, None])
        furthest: NDArray[np.float64] = out.max(axis=0)
        return furthest


class Watch:
    """Follows the signals of a batch of generations, a step at a time.

    step : how many steps were seen. scores : float64 `[batch]`, those of the latest step; infinite where a value was
        not a finite number, from that step on.
    stopped_at : int64 `[batch]`, the step whose score first exceeded the threshold, 0 where none has.

    What cannot be judged is stopped: a value that is not a finite number exceeds every threshold.
    """

    def __init__(self, usual: Usual, threshold: float, batch: int) -> None:
        self.usual, self.threshold = usual, threshold
        self.scores: NDArray[np.float64] = np.zeros(batch)
        self.stopped_at: NDArray[np.int64] = np.zeros(batch, dtype=np.int64)
        self._beginnings = Beginnings(batch)
        self._lost: NDArray[np.bool_] = np.zeros(batch, dtype=bool)  # whose values are not all finite

    @property
    def step(self) -> int:
        return self._beginnings.step

    def update(self, sigma_t: ArrayLike) -> NDArray[np.bool_]:
        """Take in the next value of each signal, `[batch]`; True where this or an earlier step was too much.

        Every row is followed to the end, stopped or not. Raises `InputError` for more steps than the guard was
        fitted on, and for another number of rows.
        """
        value = self._checked(sigma_t)
        with np.errstate(over="ignore", invalid="ignore"):
            scores = self.usual.scores(self.step + 1, self._beginnings.add(value))
        self._lost |= ~np.isfinite(value)
        self.scores = np.where(self._lost | np.isnan(scores), np.inf, scores)
        stopped = ~(self.scores <= self.threshold) | self._lost
        self.stopped_at[(self.stopped_at == 0) & stopped] = self.step
        return self.stopped_at > 0

    def _checked(self, sigma_t: ArrayLike) -> NDArray[np.float64]:
        value = np.asarray(sigma_t, dtype=np.float64)
        steps, step = len(self.usual.centre), self.step + 1
        if step > steps:
            raise InputError(f"step {step} of a signal; the guard was fitted on {steps} steps. Stop there.")
        if value.shape != self.stopped_at.shape:
            raise InputError(
                f"found values of shape {value.shape} at step {step}; expected one for each of the "
                f"{len(self.stopped_at)} generations of the batch, finished and stopped ones included."
            )
        return value
