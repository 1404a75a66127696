"""Guards: detectors of unusual trajectories, arrays in and scores out. What a flag leads to is left to defenses."""

from demur.guards.detector_guard import DetectorGuard
from demur.guards.direction_guard import DirectionGuard
from demur.guards.files import load_guard
from demur.guards.linear_guard import LinearGuard
from demur.guards.places import states_among, states_of, steps_at
from demur.guards.probe_guard import ProbeGuard
from demur.guards.sri_guard import SRIGuard
from demur.guards.streaming_guard import StepsSaved, StreamingGuard
from demur.guards.trajectory_guard import TrajectoryGuard
from demur.guards.watch import Watch

load = load_guard

__all__ = [
    "DetectorGuard",
    "DirectionGuard",
    "LinearGuard",
    "ProbeGuard",
    "SRIGuard",
    "StepsSaved",
    "StreamingGuard",
    "TrajectoryGuard",
    "Watch",
    "load",
    "load_guard",
    "states_among",
    "states_of",
    "steps_at",
]
