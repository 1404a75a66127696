"""Recordings computed by the workers of a Ray cluster, here or on many machines."""

from demur.engines.ray.engine import RayEngine

__all__ = ["RayEngine"]
