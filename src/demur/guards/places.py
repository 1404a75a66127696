"""Where on its way a generation is looked at, and the states there.

In: a recording, and places as shares of its steps, or the looks of whole answers. Out: states
`[prompts, places, layers, width]` that know their recording. What is made of them is left to guards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur.errors import InputError
from demur.looks import Looks
from demur.signal import Signal
from demur.signal.sums import RecordingLike

PLACES = (0.5, 1.0)
"""Where on its way a generation is looked at, in shares of its steps."""
Places = Sequence[float] | Looks
"""Shares of the steps, or looks: each look then is as many places as there are means, one behind the other."""


def steps_at(places: Places, steps: int) -> tuple[int, ...]:
    """The steps, counted from 1, that lie at these shares of `steps`, rounded up: 1 is the last one.

    Of looks their steps, where look 0 counts as step 1: what it stops is stopped before step 1 is made.
    """
    if isinstance(places, Looks):
        return tuple(max(1, step) for step in places.steps)
    return tuple(max(1, int(np.ceil(place * steps - 1e-9))) for place in places)


def states_of(recording: RecordingLike, places: Places = PLACES, layers: Sequence[int] | None = None) -> Signal:
    """Phi of every prompt at a few steps, float32 `[prompts, places, layers, width]`, which knows its recording.

    places : ascending shares of the steps, above 0 and at most 1; see `steps_at`. Or the `looks` of a recording that
        keeps them: the places then are both means of look 0, both of the next, and so on, and the lengths of the
        result say how many looks each answer has.
    layers : indices of layers that the recording holds, in the order wanted; by default all of them.
    """
    require_places(places)
    made = recording.provenance
    layers = made.layers if layers is None else tuple(layers)
    if missing := [layer for layer in layers if layer not in made.layers]:
        raise InputError(
            f"the recording holds layers {list(made.layers)}, not layer {missing[0]}; record with the layers "
            f"{list(layers)}."
        )
    held = [made.layers.index(layer) for layer in layers]
    states, lengths = np.empty(0, dtype=np.float32), np.zeros(len(recording.table), dtype=np.int64)
    for rows, chosen, looks in _at(recording, places):
        if not states.size:
            states = np.full((len(recording.table), chosen.shape[1], len(held), chosen.shape[3]), np.nan, np.float32)
        states[rows], lengths[rows] = chosen[:, :, held], looks
    lengths_known = lengths if isinstance(places, Looks) else None
    return Signal(states, replace(made, layers=layers, anchors=said(places)), lengths_known)


def _at(recording: RecordingLike, places: Places) -> Iterator[tuple[Any, NDArray[Any], Any]]:
    """Rows, their states at the places `[n, places, layers, width]`, and of looks how many they have."""
    if not isinstance(places, Looks):
        for rows, phi in recording.phi_batches():
            yield rows, phi[:, [step - 1 for step in steps_at(places, phi.shape[1])]], 0
        return
    found = getattr(recording, "looks", None)
    if found != places:
        raise InputError(
            f"the recording holds {'no looks' if found is None else said(found)}, not {said(places)}; record with "
            f"keep='looks', as many steps and the same window"
        )
    for rows, states, made in recording.look_batches():  # type: ignore[attr-defined]
        yield rows, states.reshape(len(states), -1, *states.shape[3:]), made


def states_among(states: Signal, held: Sequence[float], places: Sequence[float] = PLACES) -> Signal:
    """Of states at the places `held`, those at `places`: what `states_of` would have read."""
    made = states.provenance
    chosen = np.asarray(states)[:, [list(held).index(place) for place in places]]
    return Signal(chosen, made and replace(made, anchors=said(places)))


def said(places: Places) -> str:
    """The places as provenance names them."""
    if isinstance(places, Looks):
        return f"states at looks {list(places.steps)} with a window of {places.window}"
    return f"states at {plain(places)}"


def plain(places: Sequence[float]) -> tuple[float, ...]:
    """The places as numbers that are written, read and compared alike, whatever they were given as."""
    return tuple(float(place) for place in places)


def count_of(places: Places) -> int:
    """How many places these are."""
    return len(places) * places.means if isinstance(places, Looks) else len(places)


def require_places(places: Places) -> None:
    """Raise `InputError` unless places are looks, or ascending shares of the steps."""
    if isinstance(places, Looks):
        return
    if not len(places) or not all(0 < place <= 1 for place in places) or not (np.diff(places) > 0).all():
        raise InputError(f"places is {list(places)}; expected ascending shares of the steps, above 0 and at most 1.")
