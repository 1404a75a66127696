"""What is done beside a read that happens anyway: derivers fed on the way, and states of one layer held in memory.

In: a recording that something is about to read, as anchors are fitted. Out: the same shards, each read once, given to
whoever else needs them. More states than memory should hold are let go, and read a second time where they are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from demur.recording.derived import Shard, walk
from demur.recording.recording import Recording

MOST_HELD = 2**29
"""Bytes of states that one recording may hold in memory."""


class TakesShards(Protocol):
    """Anything that is shown every shard of a recording."""

    def add(self, shard: Shard) -> None:
        """Take what is needed of a shard."""


class Shown:
    """A recording that shows each shard to others while its phi is read; for a reader that reads once.

    layers : indices of the recorded layers that the reader sees; by default all of them.
    """

    def __init__(
        self, recording: Recording, others: Sequence[TakesShards], layers: Sequence[int] | None = None
    ) -> None:
        self.recording, self.others = recording, others
        seen = recording.layers if layers is None else tuple(layers)
        self.provenance, self.table = replace(recording.provenance, layers=seen), recording.table
        self._places = None if seen == recording.layers else [recording.layers.index(layer) for layer in seen]

    def phi_batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """As `Recording.phi_batches`."""
        for shard in walk(self.recording):
            for other in self.others:
                other.add(shard)
            for _, phi in shard.phi_batches():
                yield shard.rows, phi if self._places is None else phi[:, :, self._places]


class Held:
    """The states of one layer of a recording, in memory where they are no more than `most` bytes; read like it.

    layer : its index, one of those recorded.
    """

    def __init__(self, recording: Recording, layer: int, most: int = MOST_HELD) -> None:
        self.recording, self.most = recording, most
        self.provenance = replace(recording.provenance, layers=(layer,))
        self.table = recording.table
        self._place = recording.layers.index(layer)
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []
        self._bytes = 0

    def add(self, shard: Shard) -> None:
        """Hold the states of a shard, or let go of all."""
        part = self._states(shard)
        self._bytes += part[1].nbytes
        self._parts = [*self._parts, part] if self._bytes <= self.most else []

    def phi_batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of rows and their phi ``[n, steps, 1, width]``; reads the shards where they are not all held."""
        if sum(len(rows) for rows, _ in self._parts) == len(self.table):
            yield from self._parts
        else:
            yield from map(self._states, walk(self.recording))

    def _states(self, shard: Shard) -> tuple[np.ndarray, np.ndarray]:
        ((_, phi),) = shard.phi_batches()
        return shard.rows, phi[:, :, [self._place]]
