"""Block diffusion: blocks of masks, one after another, each seeing itself and those before it."""

from demur.samplers.block_diffusion.sampler import BlockDiffusion

__all__ = ["BlockDiffusion"]
