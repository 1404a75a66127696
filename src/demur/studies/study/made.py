"""What a study was made from, for whoever goes on with it in the same process: nothing of it is read or fitted again.

In: two recordings for the anchors, with one read of each. Out: `Anchored`. `Made` only carries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from demur.guards.base import Guard
from demur.recording import Recording
from demur.recording.derived import Gathering
from demur.recording.held import Held, Shown
from demur.signal import Anchors, Signal
from demur.studies.study.derivers import Sets
from demur.studies.study.directions import STATES, placed, read_layers, states_deriver

SIDES = (("anchors_harmless", False), ("anchors_harmful", True))
"""The recordings that anchors are fitted to, and whether what was refused in them counts."""


@dataclass(frozen=True)
class Anchored:
    """Anchors and what else comes of the recordings they were fitted to.

    references : mean signal of answered harmless and of refused harmful prompts, float32 ``[2, steps]``.
    harmful : the states of plain harmful prompts at `LOOKS`, in the layers that the direction guard reads; of some of
    them where they are very many (see `fewer`).
    """

    anchors: Anchors
    references: np.ndarray
    harmful: Signal


@dataclass(frozen=True)
class Made:
    """What a study was made from.

    recordings : by prompt set. guards : fitted, by the name of their file. text_guard : the SRI Guard on the text-level
    signal. by_layer : signals of every layer by its index, and texts : the text-level ones, by prompt set.
    """

    recordings: Mapping[str, Recording]
    anchors: Anchors
    guards: Mapping[str, Guard]
    text_guard: Guard
    by_layer: Mapping[int, Sets]
    texts: Sets


def anchored_by(harmless: Recording, harmful: Recording, recorded: Sequence[int] | None = None) -> Anchored:
    """Anchors, references and harmful states with one read of both recordings.

    recorded : indices of the layers that are read, by default all that were recorded.
    References need the anchors, which need all states: those of the highest layer stay in memory in between, or are
    read a second time where they are more than `MOST_HELD` bytes a recording.
    """
    read = tuple(harmful.layers if recorded is None else recorded)
    layers = read_layers(read)
    held = [Held(recording, max(read)) for recording in (harmless, harmful)]
    gathering = Gathering(harmful, [states_deriver(harmful, layers)])
    anchors = Anchors.fit(Shown(harmless, held[:1], read), Shown(harmful, [held[1], gathering], read))
    means = []
    for one, (_, refused) in zip(held, SIDES, strict=True):
        chosen = one.table["refused"].to_numpy(dtype=bool) == refused
        means.append(np.asarray(anchors.signal(one))[chosen].mean(axis=0))
    return Anchored(anchors, np.stack(means).astype(np.float32), placed(gathering.values[STATES], harmful, layers))
