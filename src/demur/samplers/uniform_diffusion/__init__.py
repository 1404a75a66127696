"""Uniform diffusion: canvases of random tokens that are denoised as a whole, one after another."""

from demur.samplers.uniform_diffusion.sampler import UniformDiffusion

__all__ = ["UniformDiffusion"]
