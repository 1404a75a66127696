"""Guards: detectors of unusual trajectories, arrays in and scores out. What a flag leads to is left to defenses."""

from demur.guards.base import GUARDS, Guard
from demur.guards.direction import DirectionGuard
from demur.guards.drift import DriftWarning, DriftWatch, drift_of
from demur.guards.linear import LinearGuard
from demur.guards.loading import load_guard
from demur.guards.outlier.guard import DetectorGuard
from demur.guards.places import states_among, states_of, steps_at
from demur.guards.probe import ProbeGuard
from demur.guards.sri import SRIGuard
from demur.guards.streaming.guard import StepsSaved, StreamingGuard
from demur.guards.streaming.watch import Watch
from demur.guards.trajectory import TrajectoryGuard

load = load_guard

__all__ = [
    "GUARDS",
    "DetectorGuard",
    "DirectionGuard",
    "DriftWarning",
    "DriftWatch",
    "Guard",
    "LinearGuard",
    "ProbeGuard",
    "SRIGuard",
    "StepsSaved",
    "StreamingGuard",
    "TrajectoryGuard",
    "Watch",
    "drift_of",
    "load",
    "load_guard",
    "states_among",
    "states_of",
    "steps_at",
]
