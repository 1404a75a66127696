"""A guard over the signal, as a defense: it reads states that generation computed anyway.

In: a recording, and the anchors and guard of its model. Out: a `Blocking`. The time counted is that of turning
states into the signal and judging it; reading the recording from disk, which a guard attached to a running
generation need not do, is left out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.defenses.defense import Blocking, require_pairs
from demur.errors import InputError
from demur.guards import DirectionGuard, states_of
from demur.provenance import Provenance
from demur.recording import Recording
from demur.signal import Anchors, Signal


class Detector(Protocol):
    """What is asked of a guard: `SRIGuard`, or any fitted outlier detector of scikit-learn."""

    def predict(self, X: ArrayLike, /) -> NDArray[Any]:
        """+1 for a normal signal of ``[generations, steps]``, -1 for a flagged one."""


class GuardDefense:
    """Blocks a generation whose signal, for a `DirectionGuard` whose states, the guard flags.

    guard : fitted, and calibrated on held-out harmless signals. anchors : of the recorded model and sampler; not
        needed for recordings that keep the signal, whose time then is the guard's alone, nor for a direction guard.
    """

    def __init__(self, guard: Detector, anchors: Anchors | None = None) -> None:
        self.guard, self.anchors = guard, anchors

    @property
    def name(self) -> str:
        return type(self.guard).__name__

    def __call__(self, prompts: Sequence[str], texts: Sequence[str], recording: Recording | None = None) -> Blocking:
        require_pairs(self.name, prompts, texts)
        if recording is None or len(recording) != len(prompts):
            found = "no recording" if recording is None else f"a recording of {len(recording)} generations"
            raise InputError(
                f"{self.name}: {found} for {len(prompts)} prompts; a guard reads the states of a generation: give "
                f"the recording that the texts come from"
            )
        began = time.perf_counter()
        values, reading = self._values(recording)
        blocked = np.asarray(self.guard.predict(values)) == -1
        seconds = (time.perf_counter() - began - reading) / len(blocked)
        return Blocking(blocked, np.full(len(blocked), seconds), np.zeros_like(blocked))

    def describe(self) -> dict[str, Any]:
        """What the verdicts depend on, as plain values."""
        limit = getattr(self.guard, "threshold_", None)
        return {"name": self.name, "anchors": self.anchors.fingerprint if self.anchors else None, "limit": limit}

    def _values(self, recording: Recording) -> tuple[Signal, float]:
        """What the guard judges, the signal as a rule, and the seconds that went into reading the recording."""
        if isinstance(self.guard, DirectionGuard):
            clocked = _Clocked(recording)
            return states_of(clocked), clocked.seconds
        if recording.keep == "signal":
            began = time.perf_counter()
            return recording.sigma, time.perf_counter() - began
        if self.anchors is None:
            raise InputError(f"{self.name}: the recording keeps states, which take anchors to read; give anchors")
        read = _Clocked(recording)
        return self.anchors.signal(read), read.seconds


class _Clocked:
    """A recording that counts the seconds its reading takes."""

    def __init__(self, recording: Recording) -> None:
        began = time.perf_counter()
        self.recording, self.table = recording, recording.table
        self.seconds = time.perf_counter() - began

    @property
    def provenance(self) -> Provenance:
        return self.recording.provenance

    def phi_batches(self) -> Iterator[tuple[NDArray[np.integer[Any]], NDArray[np.float32]]]:
        batches = self.recording.phi_batches()
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.seconds += time.perf_counter() - began
            if batch is None:
                return
            yield batch
