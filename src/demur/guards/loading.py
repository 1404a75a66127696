"""Guards on disk, whichever they are.

In: a file that a guard saved itself in. Out: the guard. What is in the file is each guard's own business.
"""

from __future__ import annotations

import os

from demur.files.arrays import read_arrays
from demur.guards.base import Guard
from demur.guards.direction import DirectionGuard
from demur.guards.outlier.guard import DetectorGuard
from demur.guards.probe import ProbeGuard
from demur.guards.sri import SRIGuard
from demur.guards.streaming.guard import StreamingGuard
from demur.guards.trajectory import TrajectoryGuard

_GUARDS = {
    guard._kind: guard
    for guard in (SRIGuard, DetectorGuard, DirectionGuard, ProbeGuard, StreamingGuard, TrajectoryGuard)
}


def load_guard(path: str | os.PathLike[str], *, allow_unverified: bool = False) -> Guard:
    """The guard that `save` wrote to a file, of its own class; `InputError` where the file holds none.

    allow_unverified : read files of demur 0.1 too, which carry no hash.
    """
    _, header = read_arrays(path, *_GUARDS, allow_unverified=allow_unverified)
    guard: Guard = _GUARDS[header["kind"]].load(path, allow_unverified=allow_unverified)
    return guard
