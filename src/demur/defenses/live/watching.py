"""What a streaming guard watches of a generation that is being made: the signal, or how far it lies along a direction.

In: pooled states as a sampler or a network gives them. Out: one number a generation, at the steps that the guard was
fitted on, and the step at which each generation was stopped. Making the states is left to whoever generates.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from demur.errors import InputError
from demur.guards import LinearGuard, StreamingGuard, steps_at
from demur.guards.streaming.watch import ALL, Rows
from demur.looks import Looks
from demur.provenance import Provenance, require_comparable
from demur.signal import Anchors

Source = Anchors | LinearGuard
"""What turns states into the number that is watched."""


@dataclass(frozen=True)
class Reading:
    """How states become the number that is watched.

    layers : whose states are needed. steps : those at which a number comes, counted from 1.
    value : of the means of states, phi ``[batch, layers, width]`` and behind it that of the window if there is one,
        each at its n-th of those steps, n counted from 0, int64 ``[batch]``: ``[batch]``.
    looks : of whole answers; their steps are those of the reading, and 0 among them is the prompt's own state.
    """

    layers: tuple[int, ...]
    steps: tuple[int, ...]
    value: Callable[[Sequence[torch.Tensor], NDArray[np.int64]], ArrayLike]
    looks: Looks | None = None

    @classmethod
    def of(
        cls, source: Source, guard: StreamingGuard, layer: int | None = None, made: Provenance | None = None
    ) -> Reading:
        """The reading that a guard was fitted on.

        layer : of anchors, by default the highest. made : what the states will be made from, None where that is not
        known. Raises `ProvenanceError` unless source, guard and states belong together.
        """
        if isinstance(source, Anchors):
            return cls._signal(source, guard, layer, made)
        return cls._along(source, guard, layer, made)

    @classmethod
    def _signal(cls, anchors: Anchors, guard: StreamingGuard, layer: int | None, made: Provenance | None) -> Reading:
        chosen = max(anchors.layers) if layer is None else layer
        require_comparable(anchors.provenance, made, ("the anchors", "this generation"), layers=False)
        made = made or anchors.provenance
        if made is not None:
            require_comparable(guard.provenance_, anchors.describe(made, chosen), ("the guard", "the anchors' signal"))
        if guard.n_features_in_ > len(anchors.harmless):
            raise InputError(
                f"the guard was fitted on {guard.n_features_in_} steps and the anchors have {len(anchors.harmless)}; "
                "fit the guard on the signals of these anchors."
            )
        steps = tuple(range(1, guard.n_features_in_ + 1))
        return cls(
            (chosen,), steps, lambda means, places: anchors.score_step(means[0][:, 0], places + 1, chosen).cpu().numpy()
        )

    @classmethod
    def _along(
        cls, direction: LinearGuard, guard: StreamingGuard, layer: int | None, made: Provenance | None
    ) -> Reading:
        check_is_fitted(direction)
        known = direction.provenance_
        if known is None:
            raise InputError(
                "the direction guard does not know its layers and steps; fit it on what states_of makes of recordings."
            )
        if layer is not None:
            raise InputError(f"layer is {layer}; a direction guard reads the layers it was fitted on, leave it out.")
        require_comparable(known, made, ("the direction guard", "this generation"), layers=False)
        require_comparable(guard.provenance_, direction.describe(made or known), ("the guard", "the direction guard"))
        places = direction.places
        if guard.n_features_in_ != len(places):
            raise InputError(
                f"the guard was fitted on {guard.n_features_in_} numbers a generation and the direction guard looks at "
                f"{len(places)} places; fit the guard on its place_errors."
            )
        if isinstance(places, Looks):
            return cls(
                known.layers, places.steps, lambda means, looks: direction.look_error(_arrays(means), looks), places
            )
        steps = steps_at(places, int(known.sampler["steps"]))
        return cls(known.layers, steps, lambda means, places: direction.place_error(_arrays(means)[0], places))


def _arrays(means: Sequence[torch.Tensor]) -> list[NDArray[np.float32]]:
    return [one.cpu().numpy() for one in means]


class Watching:
    """Follows a batch of generations, and says which of them the guard has stopped.

    stopped_at : int64 ``[batch]``, the step that stopped a generation, 0 where none has; 1 too where the prompt's own
        state did, before step 1. scores : float64 ``[batch]``,
        those of the latest step at which a number came. looks : int64 ``[batch]``, at how many steps one came.
    """

    def __init__(self, reading: Reading, guard: StreamingGuard, batch: int) -> None:
        self.reading = reading
        self._watch = guard.watch(batch)
        self._steps = np.array([*reading.steps, np.iinfo(np.int64).max])  # the last look is never followed by another
        self._stops = np.array([0, *(max(1, step) for step in reading.steps)], dtype=np.int64)

    @property
    def scores(self) -> NDArray[np.float64]:
        return self._watch.scores

    @property
    def highest(self) -> NDArray[np.float64]:
        """The highest score of each generation so far, what a calibration is made of."""
        return self._watch.highest

    @property
    def looks(self) -> NDArray[np.int64]:
        return self._watch.steps

    @property
    def stopped_at(self) -> NDArray[np.int64]:
        return self._stops[self._watch.stopped_at]

    @property
    def stopped_at_look(self) -> NDArray[np.int64]:
        """At which of the reading's steps a generation was stopped, counted from 1; 0 where it never was."""
        return self._watch.stopped_at

    def due(self, step: int | NDArray[np.int64], rows: Rows = ALL) -> NDArray[np.bool_]:
        """Which of these rows are looked at in this step, bool ``[rows]``."""
        return step >= self._steps[self.looks[rows]]

    def update(
        self,
        phi: torch.Tensor,
        step: int | NDArray[np.int64],
        rows: Rows = ALL,
        window: torch.Tensor | None = None,
    ) -> NDArray[np.bool_]:
        """Take in phi ``[rows, layers, width]`` of a step, counted from 1; True where it or an earlier one stops.

        step : of all rows, or of each, ``[rows]``. rows : of the batch, by default all of it. window : the mean of the
        latest tokens, of looks that have one. Every step of a row that is looked at must be given once, in order. A row
        whose states are not finite is stopped, with a warning unless it was stopped before.
        """
        chosen = np.arange(len(self.looks))[rows]
        steps = np.broadcast_to(np.asarray(step), chosen.shape)
        while (due := self.due(steps, chosen)).any():
            looks, here = self.looks[chosen[due]], steps[due]
            if (late := here > self._steps[looks]).any():
                raise InputError(
                    f"step {here[late][0]} before step {self._steps[looks[late][0]]}; give every step, in order."
                )
            means = self._means(phi, window)
            if not due.all():
                means = [mean[torch.as_tensor(due)] for mean in means]
            self._watch.update(self._values(means, looks, here, chosen[due]), chosen[due])
        return self._watch.stopped_at[rows] > 0

    def stay(self, phi: torch.Tensor, row: int, looks: int, window: torch.Tensor | None = None) -> None:
        """The states of one row, ``[1, layers, width]``, are the same at so many looks more."""
        rows = np.full(looks, row)
        places = self.looks[rows] + np.arange(looks)
        means = [mean.expand(looks, -1, -1) for mean in self._means(phi, window)]
        for value in self._values(means, places, self._steps[places], rows):
            self._watch.update([value], rows[:1])

    def restart(self, rows: Rows) -> None:
        """Follow new generations in the place of these."""
        self._watch.restart(rows)

    def grow(self, count: int) -> None:
        """Follow so many generations more, behind the others."""
        self._watch.grow(count)

    def _means(self, phi: torch.Tensor, window: torch.Tensor | None) -> list[torch.Tensor]:
        """The means that the reading takes."""
        if self.reading.looks is None or self.reading.looks.window is None:
            return [phi]
        if window is None:
            raise InputError("the guard looks at a window of the latest tokens too; give its states with every look.")
        return [phi, window]

    def _values(
        self, means: list[torch.Tensor], looks: NDArray[np.int64], steps: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """The number of every row, NaN where its states are not finite: the watch stops what cannot be judged."""
        finite = torch.stack([mean.isfinite().flatten(1).all(dim=1) for mean in means]).all(dim=0)
        lost = ~finite.cpu().numpy()
        if lost.any():
            means = [torch.where(finite[:, None, None], mean, 0) for mean in means]
            self._warn(rows[lost], steps[lost])
        return np.where(lost, np.nan, np.asarray(self.reading.value(means, looks), dtype=np.float64))

    def _warn(self, rows: NDArray[np.int64], steps: NDArray[np.int64]) -> None:
        new = self._watch.stopped_at[rows] == 0
        if new.any():
            warnings.warn(
                f"the states of rows {rows[new].tolist()} of the batch are not finite at step {steps[new][0]}, so the "
                "guard cannot judge them and stops them; try another dtype, such as float32",
                UserWarning,
                stacklevel=5,
            )
