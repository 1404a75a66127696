"""What a study takes from the shards of its recordings: a deriver each, computed in one pass and kept beside them.

In: anchors, layers, places. Out: derivers, and `Derived`, their values for every prompt set. What the tables make of
the values is left to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from demur.guards import states_of
from demur.guards.places import plain, said
from demur.recording import Recording
from demur.recording.derived import Deriver, Shard, derive
from demur.signal import Anchors, Signal, text_signal
from demur.studies.study.detectors import LOOKS, read_layers
from demur.studies.study.lengths import ANSWER_TOKENS
from demur.studies.study.recovery import PREDICTED

Sets = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Derived:
    """What was derived from the recordings of a study, by prompt set.

    signals : of the highest layer, ``[prompts, steps]``. by_layer : the signals of every layer of the anchors, by its
    index. texts : text-level signals. features : as `Anchors.features` gives them. states : at `LOOKS`.
    lengths : tokens of each answer. predicted : texts predicted at each step by prompts labelled harmful, where the
    sampler revises, else None.
    """

    by_layer: Mapping[int, Sets]
    texts: Sets
    features: Sets
    states: Mapping[str, Signal]
    lengths: Sets
    predicted: Mapping[str, Sequence[Sequence[str] | None]]

    @property
    def signals(self) -> Sets:
        return self.by_layer[max(self.by_layer)]


def derived_from(recordings: Mapping[str, Recording], anchors: Anchors) -> Derived:
    """All values of every recording, each of whose shards is read at most once."""
    layers = read_layers(anchors.layers)
    wanted = [*(signal(anchors, layer) for layer in anchors.layers), features(anchors), states(LOOKS, layers)]
    wanted += [TEXT_SIGNAL, ANSWER_TOKENS]
    found = {
        name: derive(recording, [*wanted, PREDICTED] if name.startswith("test_") else wanted)
        for name, recording in recordings.items()
    }
    made = {name: recording.provenance for name, recording in recordings.items()}
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
        states={name: placed(values["states"], recordings[name], LOOKS, layers) for name, values in found.items()},
        lengths={name: values["answer_tokens"] for name, values in found.items()},
        predicted={name: values["predicted"] for name, values in found.items() if "predicted" in values},
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


def states(places: Sequence[float], layers: Sequence[int]) -> Deriver:
    """The states at these places of these layers."""
    settings = {"places": plain(places), "layers": list(layers)}
    return Deriver("states", lambda shard: states_of(shard, places, layers), settings)


def placed(values: np.ndarray, recording: Recording, places: Sequence[float], layers: Sequence[int]) -> Signal:
    """Derived states as `states_of` gives them: knowing their recording, places and layers."""
    return Signal(values, replace(recording.provenance, layers=tuple(layers), anchors=said(places)))


def text_signals(recording: Recording | Shard) -> np.ndarray:
    """The text-level signal of every generation of a recording, float32 ``[prompts, steps]``."""
    signals = np.full((len(recording), recording.steps), np.nan, dtype=np.float32)
    for row, texts in recording.all_steps_text():
        signals[row] = text_signal([text.committed for text in texts])
    return signals


TEXT_SIGNAL = Deriver("text_signal", text_signals, {})
