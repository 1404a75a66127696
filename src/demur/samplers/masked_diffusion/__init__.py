"""Masked diffusion: the sampler, its canvas, its confidences and its schedules."""

from demur.samplers.masked_diffusion.sampler import MaskedDiffusion

__all__ = ["MaskedDiffusion"]
