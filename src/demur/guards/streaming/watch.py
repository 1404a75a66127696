"""How unusual the beginning of a signal is, step by step, while the signal still arrives.

In: one value a generation and step; generations may be at different steps. Out: a score a step, and since when it is
above a threshold. What is usual comes from `StreamingGuard`; ending a generation is left to defenses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.errors import InputError

FEATURES = ("value", "mean", "movement")
"""What is looked at after each step: the latest value, and of all values so far the mean and the mean absolute
change from one step to the next."""
Rows = NDArray[np.int64] | slice
"""Which signals of a batch, each at most once."""
ALL = slice(None)


class Beginnings:
    """The `FEATURES` of a batch of signals as far as they have arrived; steps : int64 `[batch]`, how far that is."""

    def __init__(self, batch: int) -> None:
        self.steps: NDArray[np.int64] = np.zeros(batch, dtype=np.int64)
        self._value, self._sum, self._movement = (np.zeros(batch) for _ in range(3))

    def add(self, value: NDArray[np.float64], rows: Rows = ALL) -> NDArray[np.float64]:
        """Take in the next step of some signals, `[rows]`; the features with it, `[features, rows]`.

        Works element by element, so that a signal's features are the same to the last bit in every batch.
        """
        self._movement[rows] += np.where(self.steps[rows] > 0, np.abs(value - self._value[rows]), 0)
        self.steps[rows] += 1
        self._value[rows] = value
        self._sum[rows] += value
        steps = self.steps[rows]
        return np.stack([value, self._sum[rows] / steps, self._movement[rows] / np.maximum(1, steps - 1)])


@dataclass(frozen=True, eq=False)
class Usual:
    """What the features of harmless signals are at each step, all `[steps, features]`.

    centre : their median. below, above : how far the lower and the upper tail lie from it, infinite where a feature
        cannot be too low.
    """

    centre: NDArray[np.float64]
    below: NDArray[np.float64]
    above: NDArray[np.float64]

    def scores(self, steps: NDArray[np.int64], features: NDArray[np.float64]) -> NDArray[np.float64]:
        """The furthest that any of the features `[features, rows]` lies out, in tails; steps and result `[rows]`."""
        t = steps - 1
        away = features - self.centre[t].T
        out: NDArray[np.float64] = np.maximum(away / self.above[t].T, -away / self.below[t].T)
        furthest: NDArray[np.float64] = out.max(axis=0)
        return furthest


@dataclass(frozen=True)
class Evidence:
    """How many of the latest steps must be far out: `at_least` of the last `of_last`."""

    at_least: int = 1
    of_last: int = 1

    def of(self, latest: NDArray[np.float64], seen: NDArray[np.int64]) -> NDArray[np.float64]:
        """What is above a threshold where at least so many of the latest scores are, `[rows]`.

        That is the highest but `at_least` - 1 of them; minus infinity before there are as many.
        latest : scores `[rows, of_last]`, in any order, of which the first `seen` `[rows]` have come.
        """
        come = np.arange(self.of_last) < seen[:, None]
        ordered: NDArray[np.float64] = np.sort(np.where(come, latest, -np.inf), axis=1)
        return ordered[:, -self.at_least]


class Watch:
    """Follows the signals of a batch of generations, a step at a time, all together or each at its own pace.

    steps : int64 `[batch]`, how many steps of each were seen. scores : float64 `[batch]`, those of the latest step;
        infinite where a value was not a finite number, from that step on. highest : the highest of all so far.
    evidence : at how many of the latest steps a signal must be far out to be stopped.
    stopped_at : int64 `[batch]`, the step whose score first exceeded the threshold, 0 where none has.

    What cannot be judged is stopped: a value that is not a finite number exceeds every threshold.
    """

    def __init__(self, usual: Usual, threshold: float, batch: int, evidence: Evidence = Evidence()) -> None:
        self.usual, self.threshold, self.evidence = usual, threshold, evidence
        self._latest = np.zeros((batch, evidence.of_last))
        self.scores: NDArray[np.float64] = np.zeros(batch)
        self.highest: NDArray[np.float64] = np.zeros(batch)
        self.stopped_at: NDArray[np.int64] = np.zeros(batch, dtype=np.int64)
        self._beginnings = Beginnings(batch)
        self._lost: NDArray[np.bool_] = np.zeros(batch, dtype=bool)  # whose values are not all finite

    @property
    def steps(self) -> NDArray[np.int64]:
        return self._beginnings.steps

    def update(self, sigma_t: ArrayLike, rows: Rows = ALL) -> NDArray[np.bool_]:
        """Take in the next value of each signal, or of those `rows`; True where it or an earlier one was too much.

        Every row may be followed to the end, stopped or not. Returns a verdict a value. Raises `InputError` for more
        steps than the guard was fitted on, and for another number of values.
        """
        value = self._checked(sigma_t, rows)
        with np.errstate(over="ignore", invalid="ignore"):
            features = self._beginnings.add(value, rows)
            scores = self.usual.scores(self.steps[rows], features)
        self._lost[rows] |= ~np.isfinite(value)
        lost, seen = self._lost[rows] | np.isnan(scores), self.steps[rows]
        self._latest[np.arange(len(self._latest))[rows], (seen - 1) % self.evidence.of_last] = scores
        self.scores[rows] = scores = np.where(lost, np.inf, self.evidence.of(self._latest[rows], seen))
        self.highest[rows] = np.where(seen == 1, scores, np.maximum(self.highest[rows], scores))
        stopped, before = ~(scores <= self.threshold) | lost, self.stopped_at[rows]
        self.stopped_at[rows] = now = np.where((before == 0) & stopped, self.steps[rows], before)
        return now > 0

    def restart(self, rows: Rows) -> None:
        """Follow new generations in the place of these."""
        for holder, name in self._kept():
            getattr(holder, name)[rows] = 0

    def grow(self, count: int) -> None:
        """Follow so many generations more, behind the others."""
        for holder, name in self._kept():
            before = getattr(holder, name)
            setattr(holder, name, np.concatenate([before, np.zeros((count, *before.shape[1:]), dtype=before.dtype)]))

    def _kept(self) -> Iterator[tuple[object, str]]:
        """Every array `[batch, ...]` of this watch: who holds it, and its name."""
        for holder in (self, self._beginnings):
            yield from ((holder, name) for name, value in list(vars(holder).items()) if isinstance(value, np.ndarray))

    def _checked(self, sigma_t: ArrayLike, rows: Rows) -> NDArray[np.float64]:
        value = np.asarray(sigma_t, dtype=np.float64)
        seen, steps = self.steps[rows], len(self.usual.centre)
        if value.shape != seen.shape:
            raise InputError(
                f"found values of shape {value.shape} at step {int(seen.max(initial=0)) + 1}; expected one for each of "
                f"the {len(seen)} generations of the batch, finished and stopped ones included."
            )
        if (seen >= steps).any():
            raise InputError(
                f"step {int(seen.max()) + 1} of a signal; the guard was fitted on {steps} steps. Stop there."
            )
        return value
