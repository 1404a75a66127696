"""The samplers by name: demur's own, and those of plugins, which put `@SAMPLERS.register(name)` before the class."""

from __future__ import annotations

from demur.plugins import Registry
from demur.samplers.autoregressive import Autoregressive
from demur.samplers.block_diffusion.closing import ClosingBlockDiffusion
from demur.samplers.block_diffusion.editing import TokenEditing
from demur.samplers.block_diffusion.reordering import ReorderingDiffusion
from demur.samplers.block_diffusion.sampler import BlockDiffusion
from demur.samplers.masked_diffusion.diffuguard import DiffuGuard
from demur.samplers.masked_diffusion.sampler import MaskedDiffusion
from demur.samplers.step import Sampler
from demur.samplers.uniform_diffusion import UniformDiffusion

OWN: tuple[type[Sampler], ...] = (
    Autoregressive,
    MaskedDiffusion,
    DiffuGuard,
    BlockDiffusion,
    TokenEditing,
    ClosingBlockDiffusion,
    ReorderingDiffusion,
    UniformDiffusion,
)
SAMPLERS: Registry[type[Sampler]] = Registry("sampler", {one.__name__: one for one in OWN})
