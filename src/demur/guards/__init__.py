"""Guards: detectors of unusual trajectories, arrays in and scores out. What a flag leads to is left to defenses."""

from demur.guards.sri_guard import SRIGuard

__all__ = ["SRIGuard"]
