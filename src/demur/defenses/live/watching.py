"""What a streaming guard watches of a generation that is being made: the signal, or how far it lies along a direction.

In: pooled states as a sampler or a network gives them. Out: one number a generation, at the steps that the guard was
fitted on, and the step at which each generation was stopped. Making the states is left to whoever generates.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from demur.errors import InputError
from demur.guards import LinearGuard, StreamingGuard, steps_at
from demur.provenance import Provenance, require_comparable
from demur.signal import Anchors

Source = Anchors | LinearGuard
"""What turns states into the number that is watched."""


@dataclass(frozen=True)
class Reading:
    """How states become the number that is watched.

    layers : whose states are needed. steps : those at which a number comes, counted from 1.
    value : of phi ``[batch, layers, width]`` at the n-th of those steps, n counted from 0: ``[batch]``.
    """

    layers: tuple[int, ...]
    steps: tuple[int, ...]
    value: Callable[[torch.Tensor, int], ArrayLike]

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
        return cls((chosen,), steps, lambda phi, place: anchors.score_step(phi[:, 0], place + 1, chosen).cpu().numpy())

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
        if guard.n_features_in_ != len(direction.places):
            raise InputError(
                f"the guard was fitted on {guard.n_features_in_} numbers a generation and the direction guard looks at "
                f"{len(direction.places)} places; fit the guard on its place_errors."
            )
        steps = steps_at(direction.places, int(known.sampler["steps"]))
        return cls(known.layers, steps, lambda phi, place: direction.place_error(phi.cpu().numpy(), place))


class Watching:
    """Follows a batch of generations, and says which of them the guard has stopped.

    stopped_at : int64 ``[batch]``, the step that stopped a generation, 0 where none has. scores : float64 ``[batch]``,
        those of the latest step at which a number came.
    """

    def __init__(self, reading: Reading, guard: StreamingGuard, batch: int) -> None:
        self.reading = reading
        self._watch = guard.watch(batch)

    @property
    def scores(self) -> NDArray[np.float64]:
        return self._watch.scores

    @property
    def stopped_at(self) -> NDArray[np.int64]:
        return np.array([0, *self.reading.steps], dtype=np.int64)[self._watch.stopped_at]

    def update(self, phi: torch.Tensor, step: int) -> NDArray[np.bool_]:
        """Take in phi ``[batch, layers, width]`` of a step, counted from 1; True where it or an earlier one stops.

        Every step must be given once, in order. A row whose states are not finite is stopped, with a warning unless it
        was stopped before.
        """
        while (place := self._watch.step) < len(self.reading.steps) and step >= self.reading.steps[place]:
            if step > self.reading.steps[place]:
                raise InputError(f"step {step} before step {self.reading.steps[place]}; give every step, in order.")
            self._watch.update(self._value(phi, place, step))
        return self._watch.stopped_at > 0

    def _value(self, phi: torch.Tensor, place: int, step: int) -> NDArray[np.float64]:
        """The number of every row, NaN where its states are not finite: the watch stops what cannot be judged."""
        finite = phi.isfinite().flatten(1).all(dim=1)
        if bool(finite.all()):
            return np.asarray(self.reading.value(phi, place), dtype=np.float64)
        lost = ~finite.cpu().numpy()
        if new := np.flatnonzero(lost & (self._watch.stopped_at == 0)).tolist():
            warnings.warn(
                f"the states of rows {new} of the batch are not finite at step {step}, so the guard cannot judge them "
                "and stops them; try another dtype, such as float32",
                UserWarning,
                stacklevel=4,
            )
        values = self.reading.value(torch.where(finite[:, None, None], phi, 0), place)
        return np.where(lost, np.nan, np.asarray(values, dtype=np.float64))
