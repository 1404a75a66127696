"""Block diffusion in which the pass that closes a block commits the first token of the next one (Fast-dLLM v2).

In: a Fast-dLLM v2 model and a left-padded batch. Out: T `Step`s, which are, idle ones apart, those of its official
sampler without its block cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import torch

from demur.errors import InputError
from demur.samplers.block_diffusion.base import BlockSampler, Run, forced_or_guessed, guess_block
from demur.samplers.block_diffusion.canvas import Layout
from demur.samplers.masked_diffusion.schedule import most_confident
from demur.samplers.step import Pooling, require_at_least, require_count, require_one_of


class ClosingBlockDiffusion(BlockSampler):
    """Denoising in small blocks with a closing pass, as `generate` of Fast-dLLM v2 does it.

    A step commits all masks of the first small block that has any which are surer than `threshold` (strictly), and
    always the surest. When a block is full, its closing pass commits the *next* block's first token, from the logits at
    its last position. A prompt that fills its blocks has a first step of that kind, before any position of the response
    has a state: phi is then the state of the prompt's last token. The token that such a pass commits has no state
    yet and enters phi with the next pass.

    steps : T, shared equally by the blocks; by default ``block_length + 1`` each, the most one can need. Where a
        share is used up, its last step but one commits what is left of the block and its last step closes it.
    response_length : `max_new_tokens`, of which whole blocks are counted, at least one. Blocks are counted from the
        prompt's first token, so a response has ``block_length * blocks + 1`` positions, less what its prompt takes of
        a block.
    block_length, small_block_length : `block_size`, `small_block_size`.
    temperature, top_p : 0 predicts the most likely token; above 0 tokens are drawn among the likeliest.
    stop_ids : tokens that end a response once nothing is masked before them; by default the model's `eos_token_ids`.
    seed, pooling : as in `MaskedDiffusion`.
    """

    def __init__(
        self,
        steps: int | None = None,
        response_length: int | None = None,
        *,
        block_length: int = 32,
        small_block_length: int = 8,
        threshold: float = 0.9,
        temperature: float = 0.0,
        top_p: float = 0.95,
        stop_ids: Sequence[int] | None = None,
        seed: int = 0,
        pooling: Pooling = "paper",
    ) -> None:
        for name, number in (("threshold", threshold), ("temperature", temperature), ("top_p", top_p)):
            require_at_least(name, number, 0)
        require_one_of("pooling", pooling, get_args(Pooling))
        self.block_length = require_count("block_length", block_length)
        self.small_block_length = require_count("small_block_length", small_block_length)
        if self.block_length % self.small_block_length:
            raise InputError(
                f"block_length {self.block_length} is no multiple of small_block_length {self.small_block_length}"
            )
        self.threshold, self.temperature, self.top_p, self.pooling = threshold, temperature, top_p, pooling
        self.seed = require_count("seed", seed, None)
        self.stop_ids = None if stop_ids is None else [require_count("stop_ids", one, 0) for one in stop_ids]
        steps = None if steps is None else require_count("steps", steps)
        if response_length is None:
            response_length = 128 if steps is None else max(1, steps // (self.block_length + 1)) * self.block_length
        self.asked_length = require_count("response_length", response_length)
        self.blocks = max(1, self.asked_length // self.block_length)
        self.response_length = self.blocks * self.block_length + 1
        self.step_count = self.blocks * (self.block_length + 1) if steps is None else steps
        if self.share < 3:
            raise InputError(
                f"steps {self.step_count} give each of {self.blocks} blocks {self.share}; one needs 3, to begin, "
                f"to fill and to close it: give steps={3 * self.blocks}, or a shorter response"
            )

    @property
    def arguments(self) -> dict[str, Any]:
        names = ["block_length", "small_block_length", "threshold", "temperature", "top_p", "stop_ids", "seed"]
        lengths = {"steps": self.step_count, "response_length": self.asked_length}
        return {**lengths, **{name: getattr(self, name) for name in [*names, "pooling"]}}

    def layout(self, lengths: torch.Tensor) -> Layout:
        first_block = lengths // self.block_length
        end = (first_block + self.blocks) * self.block_length + 1
        return Layout(torch.zeros_like(lengths), lengths, end, self.block_length, self.response_length)

    def has_state(self, prompt_length: int, committed: np.ndarray, before: np.ndarray) -> np.ndarray:
        opens = (prompt_length + np.arange(len(committed))) % self.block_length == 0
        kept: np.ndarray = committed & (before | ~opens)
        return kept

    def begin(self, run: Run, number: int) -> None:
        if number:  # a block that was closed has been seen whole
            run.canvas.fold((run.closed & ~run.finished).nonzero().squeeze(1))
        super().begin(run, number)

    def advance(self, run: Run, place: int) -> torch.Tensor:
        canvas = run.canvas
        due = ~(run.finished | run.closed)
        opens = (canvas.start == canvas.layout.first) & (canvas.valid < canvas.start)  # nothing of the prompt was read
        if place == 0 and bool((due & opens).any()):
            canvas.look((due & opens).nonzero().squeeze(1), prompt_only=True)
            self._commit_next(run, due & opens, canvas.start)
        rest = due & ~opens if place == 0 else due
        masked = canvas.block_masked & rest.unsqueeze(1)
        closing = rest & ~masked.any(dim=1)
        canvas.look(rest.nonzero().squeeze(1))
        self._denoise(run, masked, last=place == self.share - 2)
        self._commit_next(run, closing, canvas.start + self.block_length)
        run.closed = run.closed | closing
        return due

    def _denoise(self, run: Run, masked: torch.Tensor, *, last: bool) -> None:
        """Commit what is sure enough in the small block under way; a response whose end stands clear is over."""
        canvas = run.canvas
        tokens, sure = guess_block(run, masked, self.temperature, 0, self.top_p, "filtered")
        small = torch.arange(masked.shape[1], device=masked.device) // self.small_block_length
        first = torch.where(masked, small, masked.shape[1]).min(dim=1, keepdim=True).values
        here = masked & (small == first)
        one = torch.ones(len(masked), dtype=torch.int64, device=masked.device)
        chosen = masked if last else most_confident(sure, here, one) | (here & (sure > self.threshold))
        canvas.write(chosen, forced_or_guessed(run, tokens))
        stops = canvas.block_answers & torch.isin(canvas.block_tokens, run.stops)
        first_stop = torch.where(stops, torch.arange(stops.shape[1], device=stops.device), stops.shape[1])
        before = torch.arange(stops.shape[1], device=stops.device) < first_stop.min(dim=1, keepdim=True).values
        clear = stops.any(dim=1) & ~(canvas.block_masked & before).any(dim=1)
        run.finished = run.finished | (clear & masked.any(dim=1))

    def _commit_next(self, run: Run, rows: torch.Tensor, slots: torch.Tensor) -> None:
        """Commit the token at `slots` ``[batch]`` that the last position of the latest pass predicts, for some rows."""
        canvas = run.canvas
        chosen = rows.nonzero().squeeze(1)
        if not len(chosen):
            return
        tokens = canvas.next_logits(chosen).argmax(dim=-1)
        places = slots[chosen]
        if run.responses is not None:
            tokens = run.responses[chosen, places - canvas.layout.first[chosen]]
        standing = canvas.tokens[chosen, places]
        canvas.tokens[chosen, places] = torch.where(standing == canvas.mask_id, tokens, standing)
        ended = torch.isin(canvas.tokens[chosen, places], run.stops)
        run.finished[chosen[ended]] = True
