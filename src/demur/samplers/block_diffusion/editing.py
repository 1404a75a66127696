"""Token editing: block diffusion in which a committed token of the current block can still change (LLaDA-2.1).

In: a LLaDA-2.1 model and a left-padded batch. Out: T `Step`s, which are, idle ones apart, those of its official
sampler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch

from demur.samplers.block_diffusion.base import BlockSampler, Run, forced_or_guessed, guess_block, is_forced
from demur.samplers.block_diffusion.canvas import Layout
from demur.samplers.block_diffusion.choice import Confidence
from demur.samplers.block_diffusion.sampler import room
from demur.samplers.masked_diffusion.schedule import most_confident
from demur.samplers.step import Pooling, require_at_least, require_count, require_one_of, require_switch


class TokenEditing(BlockSampler):
    """Denoising with corrections, as `generate` of LLaDA-2.1 does it.

    A pass commits the masks of the block that are surer than `threshold`, at least `num_to_transfer`, and replaces
    committed tokens of the block whose new prediction is another and surer than `editing_threshold`. When no mask is
    left, passes go on until one edits nothing, at most `max_post_steps`. Both comparisons are strict.

    steps : T, shared equally by the blocks; a block that has used up its share commits what is left of it. By default
        enough for a step a position and all `max_post_steps`.
    response_length, block_length, temperature, top_k, top_p, confidence, seed, pooling : as in `BlockDiffusion`.
    stop_ids, eos_early_stop : a response ends after a block that leaves no mask and holds such a token, but only where
        `eos_early_stop` is set, as officially.

    `predicted` of a step holds the committed tokens as its pass read them, so an edit is in `committed` of its step and
    in `predicted` of the next. Forced tokens and those of the prompt are never edited.
    """

    edits = True

    def __init__(
        self,
        steps: int | None = None,
        response_length: int | None = None,
        *,
        block_length: int = 32,
        threshold: float = 0.95,
        editing_threshold: float = 0.9,
        max_post_steps: int = 16,
        num_to_transfer: int = 1,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        confidence: Confidence = "filtered",
        stop_ids: Sequence[int] | None = None,
        eos_early_stop: bool = False,
        seed: int = 0,
        pooling: Pooling = "paper",
    ) -> None:
        numbers = {"threshold": threshold, "editing_threshold": editing_threshold, "temperature": temperature}
        for name, number in {**numbers, "top_p": top_p}.items():
            require_at_least(name, number, 0)
        require_one_of("confidence", confidence, get_args(Confidence))
        require_one_of("pooling", pooling, get_args(Pooling))
        require_switch("eos_early_stop", eos_early_stop)
        self.block_length = require_count("block_length", block_length)
        self.threshold, self.editing_threshold = threshold, editing_threshold
        self.max_post_steps = require_count("max_post_steps", max_post_steps, 0)
        self.num_to_transfer = require_count("num_to_transfer", num_to_transfer)
        self.temperature, self.top_p, self.confidence = temperature, top_p, confidence
        self.top_k, self.seed = require_count("top_k", top_k, 0), require_count("seed", seed, None)
        self.stop_ids = None if stop_ids is None else [require_count("stop_ids", one, 0) for one in stop_ids]
        self.eos_early_stop, self.pooling = eos_early_stop, pooling
        steps = None if steps is None else require_count("steps", steps)
        if response_length is None:
            response_length = 128 if steps is None else room(steps, self.block_length, self.block_length)
        self.asked_length = require_count("response_length", response_length)
        self.response_length = self.asked_length + self.block_length - 1
        self.blocks = -(-self.response_length // self.block_length)
        self.step_count = self.blocks * (self.block_length + self.max_post_steps) if steps is None else steps
        self.require_steps()

    @property
    def arguments(self) -> dict[str, Any]:
        names = ["block_length", "threshold", "editing_threshold", "max_post_steps", "num_to_transfer", "temperature"]
        names += ["top_k", "top_p", "confidence", "stop_ids", "eos_early_stop", "seed", "pooling"]
        lengths = {"steps": self.step_count, "response_length": self.asked_length}
        return {**lengths, **{name: getattr(self, name) for name in names}}

    def layout(self, lengths: torch.Tensor) -> Layout:
        return self.whole_blocks(lengths)

    def advance(self, run: Run, place: int) -> torch.Tensor:
        canvas = run.canvas
        if place == 0:
            run.counts = torch.zeros_like(run.counts)  # passes of this block that found no mask
        own = canvas.block_answers & ~is_forced(canvas)
        due = own.any(dim=1) & ~(run.finished | run.closed)
        masked = canvas.block_masked & due.unsqueeze(1)
        full = ~masked.any(dim=1)
        due = due & ~(full & (run.counts >= self.max_post_steps))
        run.counts = run.counts + (due & full).long()
        self.look(run, due, place)
        own = own & due.unsqueeze(1)
        tokens, sure = guess_block(run, own, self.temperature, self.top_k, self.top_p, self.confidence)
        filled = masked if place == self.share - 1 else self._filled(sure, masked)
        changed = tokens != canvas.block_tokens
        edited = own & ~masked & changed & (sure > self.editing_threshold)
        canvas.edit(edited, forced_or_guessed(run, tokens))
        canvas.write(filled, forced_or_guessed(run, tokens))
        over = ~canvas.block_masked.any(dim=1) & (run.counts >= self.max_post_steps)
        run.closed = run.closed | over | (due & full & ~edited.any(dim=1)) | (place == self.share - 1)
        if self.eos_early_stop:
            response = canvas.response
            begun = canvas.exists & (canvas.places < (canvas.start + self.block_length).unsqueeze(1))
            whole = ~(begun & (response == canvas.mask_id)).any(dim=1)
            run.finished = run.finished | (run.closed & whole & (begun & torch.isin(response, run.stops)).any(dim=1))
        return due

    def _filled(self, sure: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        """The masks that a pass commits, bool ``[batch, block]``."""
        passing = masked & (sure > self.threshold)
        least = torch.full((len(masked),), self.num_to_transfer, device=masked.device)
        enough = passing.sum(dim=1) >= self.num_to_transfer
        return torch.where(enough.unsqueeze(1), passing, most_confident(sure, masked, least))
