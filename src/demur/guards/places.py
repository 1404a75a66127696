"""Where on its way a generation is looked at, and the states there.

In: a recording, and places as shares of its steps. Out: states `[prompts, places, layers, width]` that know their
recording. What is made of them is left to guards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from demur.errors import InputError
from demur.signal import Signal
from demur.signal.sums import RecordingLike

PLACES = (0.5, 1.0)
"""Where on its way a generation is looked at, in shares of its steps."""


def steps_at(places: Sequence[float], steps: int) -> tuple[int, ...]:
    """The steps, counted from 1, that lie at these shares of `steps`, rounded up: 1 is the last one."""
    return tuple(max(1, int(np.ceil(place * steps - 1e-9))) for place in places)


def states_of(
    recording: RecordingLike, places: Sequence[float] = PLACES, layers: Sequence[int] | None = None
) -> Signal:
    """Phi of every prompt at a few steps, float32 `[prompts, places, layers, width]`, which knows its recording.

    places : ascending shares of the steps, above 0 and at most 1; see `steps_at`.
    layers : indices of layers that the recording holds, in the order wanted; by default all of them.
    """
    require_shares(places)
    made = recording.provenance
    layers = made.layers if layers is None else tuple(layers)
    if missing := [layer for layer in layers if layer not in made.layers]:
        raise InputError(
            f"the recording holds layers {list(made.layers)}, not layer {missing[0]}; record with the layers "
            f"{list(layers)}."
        )
    held = [made.layers.index(layer) for layer in layers]
    states = np.empty(0, dtype=np.float32)
    for rows, phi in recording.phi_batches():
        chosen = phi[:, [step - 1 for step in steps_at(places, phi.shape[1])]][:, :, held]
        if not states.size:
            states = np.full((len(recording.table), *chosen.shape[1:]), np.nan, dtype=np.float32)
        states[rows] = chosen
    return Signal(states, replace(made, layers=layers, anchors=said(places)))


def states_among(states: Signal, held: Sequence[float], places: Sequence[float] = PLACES) -> Signal:
    """Of states at the places `held`, those at `places`: what `states_of` would have read."""
    made = states.provenance
    chosen = np.asarray(states)[:, [list(held).index(place) for place in places]]
    return Signal(chosen, made and replace(made, anchors=said(places)))


def said(places: Sequence[float]) -> str:
    """The places as provenance names them."""
    return f"states at {plain(places)}"


def plain(places: Sequence[float]) -> tuple[float, ...]:
    """The places as numbers that are written, read and compared alike, whatever they were given as."""
    return tuple(float(place) for place in places)


def require_shares(places: Sequence[float]) -> None:
    """Raise `InputError` unless places are ascending shares of the steps."""
    if not len(places) or not all(0 < place <= 1 for place in places) or not (np.diff(places) > 0).all():
        raise InputError(f"places is {list(places)}; expected ascending shares of the steps, above 0 and at most 1.")
