"""The direction guards of a study, and their errors: fitted to the states of few prompts, so that no set's are held.

In: recordings of the prompts that guards are fitted to, and the states of plain harmful prompts. Out: two guards, and
derivers of their errors, a few numbers a prompt in place of its states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from demur.guards import DirectionGuard, LinearGuard, states_among, states_of
from demur.guards.calibration import warned_already
from demur.guards.places import plain, said
from demur.recording import Recording
from demur.recording.derived import Deriver, Shard, Value
from demur.signal import Signal
from demur.studies.study.fewer import fewer

LOOKS = tuple((look + 1) / 8 for look in range(8))
"""Where the states are taken: at eight looks, of which the direction guard uses the fourth and the last."""
STATES = "states"
TRAIN, CALIBRATION = "guard_train_harmless", "guard_calibration_harmless"
"""The prompt sets that guards are fitted to and calibrated on."""


@dataclass(frozen=True)
class Directions:
    """The direction guard, and one of the same kind at every look, which a streaming guard watches.

    name : what their derived errors are called; other linear guards that look at places of `LOOKS` have other names.
    """

    direction: LinearGuard
    looking: LinearGuard
    name: str = "direction"

    def derivers(self) -> list[Deriver]:
        """The errors of both: `name` ``[n]``, and `name` with "_looks" behind it ``[n, looks]``."""
        return [
            Deriver(self.name, lambda shard: self.error(self._states(shard)), {"guard": self.direction.fingerprint}),
            Deriver(
                f"{self.name}_looks",
                lambda shard: self.looks(self._states(shard)),
                {"guard": self.looking.fingerprint},
            ),
        ]

    def error(self, states: Signal) -> np.ndarray:
        """The errors of the guard that judges whole generations, of states at the looks."""
        return np.asarray(self.direction.errors(states_among(states, self.looking.places, self.direction.places)))

    def looks(self, states: Signal) -> np.ndarray:
        """The error at every look."""
        return np.asarray(self.looking.place_errors(states))

    def watched(self, values: np.ndarray, recording: Recording) -> Signal:
        """Derived errors at every look as `LinearGuard.place_errors` gives them."""
        return Signal(values, self.looking.describe(recording.provenance))

    def _states(self, shard: Shard) -> Signal:
        made = self.direction.provenance_
        return states_of(shard, self.looking.places, made.layers if made else None)


@warned_already()
def fitted(train: Signal, calibration: Signal, harmful: Signal, quantile: float) -> Directions:
    """Both guards, of states at `LOOKS`."""

    def fit(places: Sequence[float], read: Callable[[Signal], Signal]) -> DirectionGuard:
        guard = DirectionGuard(quantile, places=places)
        return guard.fit(read(train), calibration=read(calibration), harmful=read(harmful))

    return Directions(
        fit(DirectionGuard().places, lambda states: states_among(states, LOOKS)), fit(LOOKS, lambda states: states)
    )


def read_layers(layers: Sequence[int]) -> list[int]:
    """Those of the recorded layers that the direction guard reads: from a quarter of the depth on."""
    return [layer for layer in layers if layer >= max(layers) // 4]


def states_deriver(recording: Recording, layers: Sequence[int], places: Sequence[float] = LOOKS) -> Deriver:
    """The states at `places` of the prompts that guards are fitted to: of all, or None for those that are left out."""
    settings = {"places": plain(places), "layers": list(layers)}
    rows = fewer(len(recording))
    if len(rows) == len(recording):
        return Deriver(STATES, lambda shard: states_of(shard, places, layers), settings)

    def chosen(shard: Shard) -> Value:
        wanted = np.isin(shard.rows, rows)
        part = Shard(shard.recording, {name: values[wanted] for name, values in shard.arrays.items()})
        states = iter(np.asarray(states_of(part, places, layers)) if wanted.any() else ())
        return [next(states).copy() if is_one else None for is_one in wanted]

    return Deriver(STATES, chosen)


def placed(values: Value, recording: Recording, layers: Sequence[int], places: Sequence[float] = LOOKS) -> Signal:
    """Derived states as `states_of` gives them, of the chosen prompts: knowing their recording, places and layers."""
    if isinstance(values, list):
        values = np.stack([one for one in values if one is not None])
    return Signal(values, replace(recording.provenance, layers=tuple(layers), anchors=said(places)))
