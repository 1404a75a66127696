"""What a study takes from the shards of its recordings: a deriver each, computed in one pass and kept beside them.

In: anchors, layers, places. Out: derivers, and `Derived`, their values for every prompt set. What the tables make of
the values is left to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from demur.recording import Recording
from demur.recording.derived import Deriver, Shard, derive
from demur.signal import Anchors, Signal, text_signal
from demur.studies.study.directions import (
    CALIBRATION,
    STATES,
    TRAIN,
    Directions,
    fitted,
    placed,
    read_layers,
    states_deriver,
)
from demur.studies.study.lengths import ANSWER_TOKENS
from demur.studies.study.recovery import PREDICTED

Sets = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Derived:
    """What was derived from the recordings of a study, by prompt set.

    signals : of the highest layer, ``[prompts, steps]``. by_layer : the signals of every layer of the anchors, by its
    index. texts : text-level signals. features : as `Anchors.features` gives them. directions : the direction guards,
    and towards and looks, their errors of whole generations and at every look; None where they were not asked for.
    probe_errors and probe_looks : the same of each probe that was fitted elsewhere, by its name and the prompt set.
    lengths : tokens of each answer. predicted : texts predicted at each step by prompts labelled harmful, where the
    sampler revises, else None.
    """

    by_layer: Mapping[int, Sets]
    texts: Sets
    features: Sets
    lengths: Sets
    predicted: Mapping[str, Sequence[Sequence[str] | None]]
    directions: Directions | None = None
    towards: Sets = field(default_factory=dict)
    looks: Mapping[str, Signal] = field(default_factory=dict)
    probe_errors: Mapping[str, Sets] = field(default_factory=dict)
    probe_looks: Mapping[str, Mapping[str, Signal]] = field(default_factory=dict)

    @property
    def signals(self) -> Sets:
        return self.by_layer[max(self.by_layer)]


def derived_from(
    recordings: Mapping[str, Recording],
    anchors: Anchors,
    harmful: Signal | None = None,
    quantile: float = 0.99,
    probes: Sequence[Directions] = (),
) -> Derived:
    """All values of every recording, each of whose shards is read at most once.

    harmful : the states of plain harmful prompts; with them the direction guards are fitted, to `TRAIN` and calibrated
        on `CALIBRATION`, and their errors derived. Where those sets have more than `FIT_MOST` prompts, they are read
        a second time for their errors.
    probes : guards that were fitted elsewhere, whose errors are derived as well.
    """
    wanted = [*(signal(anchors, layer) for layer in anchors.layers), features(anchors), TEXT_SIGNAL, ANSWER_TOKENS]
    wanted += [deriver for probe in probes for deriver in probe.derivers()]
    layers = read_layers(anchors.layers)
    found: dict[str, dict[str, Any]] = {}
    states: dict[str, Signal] = {}
    directions = None
    if harmful is not None:
        for name in (TRAIN, CALIBRATION):
            found[name] = derive(recordings[name], [*wanted, states_deriver(recordings[name], layers)])
            states[name] = placed(found[name].pop(STATES), recordings[name], layers)
        directions = fitted(states[TRAIN], states[CALIBRATION], harmful, quantile)
        states = {name: one for name, one in states.items() if len(one) == len(recordings[name])}
    for name, recording in recordings.items():
        further = directions.derivers() if directions else []
        if directions and name in states:
            found[name] |= {
                "direction": directions.error(states[name]),
                "direction_looks": directions.looks(states[name]),
            }
        elif name in found:  # some of its states were fitted to, and all are read for their errors
            found[name] |= derive(recording, further)
        else:
            of_tests = [PREDICTED] if name.startswith("test_") else []
            found[name] = derive(recording, [*wanted, *further, *of_tests])
    found = {name: found[name] for name in recordings}
    made = {name: recording.provenance for name, recording in recordings.items()}

    def errors(one: Directions) -> dict[str, Any]:
        return {name: values[one.name] for name, values in found.items()}

    def looks(one: Directions) -> dict[str, Signal]:
        return {name: one.watched(values[f"{one.name}_looks"], recordings[name]) for name, values in found.items()}

    return Derived(
        by_layer={
            layer: {
                name: Signal(values[f"signal_{layer}"], anchors.describe(made[name], layer))
                for name, values in found.items()
            }
            for layer in anchors.layers
        },
        texts={name: values["text_signal"] for name, values in found.items()},
        features={name: values["features"] for name, values in found.items()},
        lengths={name: values["answer_tokens"] for name, values in found.items()},
        predicted={name: values["predicted"] for name, values in found.items() if "predicted" in values},
        directions=directions,
        towards=errors(directions) if directions else {},
        looks=looks(directions) if directions else {},
        probe_errors={one.name: errors(one) for one in probes},
        probe_looks={one.name: looks(one) for one in probes},
    )


def signal(anchors: Anchors, layer: int | None = None) -> Deriver:
    """The signal of a layer, by default the highest of the anchors; named "signal_" and the layer."""
    layer = max(anchors.layers) if layer is None else layer
    settings = {"anchors": anchors.fingerprint, "layer": layer}
    return Deriver(f"signal_{layer}", lambda shard: anchors.signal(shard, layer), settings)


def features(anchors: Anchors) -> Deriver:
    """The features of every layer of the anchors."""
    settings = {"anchors": anchors.fingerprint, "layers": list(anchors.layers)}
    return Deriver("features", anchors.features, settings)


def text_signals(recording: Recording | Shard) -> np.ndarray:
    """The text-level signal of every generation of a recording, float32 ``[prompts, steps]``."""
    signals = np.full((len(recording), recording.steps), np.nan, dtype=np.float32)
    for row, texts in recording.all_steps_text():
        signals[row] = text_signal([text.committed for text in texts])
    return signals


TEXT_SIGNAL = Deriver("text_signal", text_signals, {})
