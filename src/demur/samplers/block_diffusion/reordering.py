"""Block diffusion under causal attention: masks are moved behind what is committed before each pass (WeDLM).

In: a WeDLM model and a left-padded batch. Out: T `Step`s, which are, idle ones apart, those of its official sampler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch

from demur.samplers.block_diffusion.base import BlockSampler, Run, forced_or_guessed, guess_block
from demur.samplers.block_diffusion.canvas import Layout
from demur.samplers.masked_diffusion.schedule import most_confident
from demur.samplers.step import Pooling, require_at_least, require_count, require_one_of


class ReorderingDiffusion(BlockSampler):
    """Denoising of blocks behind a causal prefix, as `generate_wedlm` does it.

    Before each pass the masks of the block move behind all committed tokens, each keeping its own position, so that
    under causal attention they see everything that is known. Blocks are counted from the end of the prompt; the last
    one may be shorter. A response does not end early, as officially.

    steps : T, shared equally by the blocks; by default `block_length` each. Where a share is used up, its last step
        commits what is left of the block.
    response_length, block_length : `max_new_tokens`, `block_size`.
    threshold : `confidence_threshold`: a step commits all that are at least as sure, else the surest; 0 is the surest.
    temperature : divides the logits, for confidence; the most likely token is always taken.
    seed, pooling : as in `MaskedDiffusion`.
    """

    reorders = True

    def __init__(
        self,
        steps: int | None = None,
        response_length: int | None = None,
        *,
        block_length: int = 16,
        threshold: float = 0.0,
        temperature: float = 1.0,
        seed: int = 0,
        pooling: Pooling = "paper",
    ) -> None:
        require_at_least("threshold", threshold, 0)
        require_at_least("temperature", temperature, 1e-6)
        require_one_of("pooling", pooling, get_args(Pooling))
        self.block_length = require_count("block_length", block_length)
        self.threshold, self.temperature, self.pooling = threshold, temperature, pooling
        self.seed, self.stop_ids = require_count("seed", seed, None), []
        steps = None if steps is None else require_count("steps", steps)
        if response_length is None:
            response_length = 128 if steps is None else steps
        self.asked_length = self.response_length = require_count("response_length", response_length)
        self.blocks = -(-self.asked_length // self.block_length)
        self.step_count = self.blocks * self.block_length if steps is None else steps
        self.require_steps()

    @property
    def arguments(self) -> dict[str, Any]:
        names = ["block_length", "threshold", "temperature", "seed", "pooling"]
        lengths = {"steps": self.step_count, "response_length": self.asked_length}
        return {**lengths, **{name: getattr(self, name) for name in names}}

    def from_left(self) -> ReorderingDiffusion | None:
        """Blocks of one position: under causal attention that is the autoregressive order itself."""
        if self.block_length == 1:
            return None
        return type(self)(**{**self.arguments, "steps": self.asked_length, "block_length": 1})

    def layout(self, lengths: torch.Tensor) -> Layout:
        lead = -lengths % self.block_length
        first = lead + lengths
        return Layout(lead, first, first + self.asked_length, self.block_length, self.response_length)

    def read_order(self, masked: Sequence[bool]) -> list[int]:
        return sorted(range(len(masked)), key=lambda place: bool(masked[place]))

    def sight(self, prompt_length: int, positions: int) -> None:
        return None  # causal, in the order of reading

    def advance(self, run: Run, place: int) -> torch.Tensor:
        canvas = run.canvas
        masked = canvas.block_masked & ~run.finished.unsqueeze(1)
        due = masked.any(dim=1)
        self.look(run, due, place)
        tokens, _ = guess_block(run, masked, 0.0, 0, 1.0, "plain")
        sure = self._sure(run, masked)
        one = torch.ones(len(masked), dtype=torch.int64, device=masked.device)
        chosen = most_confident(sure, masked, one)
        if self.threshold > 0:
            chosen = chosen | (masked & (sure >= self.threshold))
        if place == self.share - 1:
            chosen = masked
        canvas.write(chosen, forced_or_guessed(run, tokens))
        return due

    def _sure(self, run: Run, masked: torch.Tensor) -> torch.Tensor:
        """The largest probability at each mask of the block, of logits over the temperature, ``[batch, block]``."""
        rows, places = masked.nonzero(as_tuple=True)
        sure = torch.zeros(masked.shape, device=masked.device)
        if len(rows):
            sure[rows, places] = (run.canvas.logits(rows, places) / self.temperature).softmax(dim=-1).max(dim=-1).values
        return sure
