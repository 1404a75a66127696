"""Samplers: what a step is. Each is a generator of `Step` over a batch."""

from demur.samplers.autoregressive import Autoregressive
from demur.samplers.block_diffusion.closing import ClosingBlockDiffusion
from demur.samplers.block_diffusion.editing import TokenEditing
from demur.samplers.block_diffusion.reordering import ReorderingDiffusion
from demur.samplers.block_diffusion.sampler import BlockDiffusion
from demur.samplers.masked_diffusion.diffuguard import DiffuGuard
from demur.samplers.masked_diffusion.sampler import MaskedDiffusion
from demur.samplers.step import Pooling, Prefill, Sampler, Step, Steps
from demur.samplers.table import SAMPLERS
from demur.samplers.uniform_diffusion import UniformDiffusion

__all__ = [
    "SAMPLERS",
    "Autoregressive",
    "BlockDiffusion",
    "ClosingBlockDiffusion",
    "DiffuGuard",
    "MaskedDiffusion",
    "Pooling",
    "Prefill",
    "ReorderingDiffusion",
    "Sampler",
    "Step",
    "Steps",
    "TokenEditing",
    "UniformDiffusion",
]
