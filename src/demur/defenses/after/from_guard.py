"""A guard as a defense: it reads states that generation computed anyway.

In: a recording, and the guard of its model with the anchors or the direction it reads by. Out: a `Blocking`. The time
counted is that of turning states into what the guard judges and judging it; reading the recording from disk, which a
guard attached to a running generation need not do, is left out.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.defenses.defense import Blocking, require_pairs
from demur.defenses.live.watching import Source
from demur.errors import InputError
from demur.guards import LinearGuard
from demur.guards.base import Guard
from demur.looks import Looks
from demur.provenance import Provenance
from demur.recording import Recording
from demur.signal import Signal

Batch = TypeVar("Batch")


class Detector(Protocol):
    """What is asked of a guard: `SRIGuard`, or any fitted outlier detector of scikit-learn."""

    def predict(self, X: ArrayLike, /) -> NDArray[Any]:
        """+1 for a normal signal of ``[generations, steps]``, -1 for a flagged one."""


class GuardDefense:
    """Blocks a generation whose signal, for a `LinearGuard` whose states, the guard flags.

    guard : fitted, and calibrated on held-out harmless generations. source : the anchors of the recorded model and
        sampler, or the `LinearGuard` whose `place_errors` the guard watches. Not needed for recordings that keep the
        signal, whose time then is the guard's alone, nor for a linear guard itself.
    """

    def __init__(self, guard: Detector, source: Source | None = None) -> None:
        if isinstance(guard, LinearGuard) and source is not None:
            raise InputError(f"a {type(guard).__name__} reads states by itself; leave source out")
        self.guard, self.source = guard, source

    @property
    def name(self) -> str:
        source = self.source
        return type(self.guard).__name__ + (f" on the {source.watched_as}" if isinstance(source, LinearGuard) else "")

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
        seconds = max(0.0, time.perf_counter() - began - reading) / len(blocked)
        return Blocking(blocked, np.full(len(blocked), seconds), np.zeros_like(blocked))

    def describe(self) -> dict[str, Any]:
        """What the verdicts depend on, as plain values."""
        read_by = self.guard if isinstance(self.guard, LinearGuard) else self.source
        limit = getattr(self.guard, "threshold_", None)
        source = read_by.fingerprint if read_by else None
        return {"name": self.name, "source": source, "guard": _identity(self.guard), "limit": limit}

    def _values(self, recording: Recording) -> tuple[Signal, float]:
        """What the guard judges, the signal as a rule, and the seconds that went into reading the recording."""
        if recording.keep == "signal":
            began = time.perf_counter()
            return recording.sigma, time.perf_counter() - began
        read = _Clocked(recording)
        if isinstance(self.guard, LinearGuard):
            return self.guard.states(read), read.seconds
        if isinstance(self.source, LinearGuard):
            return self.source.place_errors(self.source.states(read)), read.seconds
        if self.source is None:
            raise InputError(
                f"{self.name}: the recording keeps states, which take anchors to read; give anchors, or the direction "
                f"guard whose place errors it watches"
            )
        return self.source.signal(read), read.seconds


def _identity(guard: Detector) -> str:
    """A sha256 over all that a guard has learned; of scikit-learn's detectors over their arrays and parameters."""
    learned = guard._state()[0] if isinstance(guard, Guard) else vars(guard)
    content = hashlib.sha256(type(guard).__name__.encode())
    for name, value in sorted(learned.items()):
        plain = isinstance(value, str | bytes | int | float | bool | None | list | tuple | np.generic)
        data = np.ascontiguousarray(value).tobytes() if isinstance(value, np.ndarray) else repr(value) if plain else ""
        content.update(f"{name}:".encode() + (data.encode() if isinstance(data, str) else data))
    return content.hexdigest()


class _Clocked:
    """A recording that counts the seconds its reading takes."""

    def __init__(self, recording: Recording) -> None:
        began = time.perf_counter()
        self.recording, self.table = recording, recording.table
        self.seconds = time.perf_counter() - began

    @property
    def provenance(self) -> Provenance:
        return self.recording.provenance

    @property
    def looks(self) -> Looks | None:
        return self.recording.looks

    def phi_batches(self) -> Iterator[tuple[NDArray[np.integer[Any]], NDArray[np.float32]]]:
        return self._clocked(self.recording.phi_batches())

    def look_batches(self) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        return self._clocked(self.recording.look_batches())

    def _clocked(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.seconds += time.perf_counter() - began
            if batch is None:
                return
            yield batch
