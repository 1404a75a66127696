"""Block diffusion: each step commits the surest or the leftmost masks of the current block.

In: a block diffusion model and a left-padded batch. Out: T `Step`s, which are, idle ones apart, those of the official
samplers of SDAR, LLaDA-2.0 and A2D (BD3LM).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch

from demur.errors import InputError
from demur.samplers.block_diffusion.base import (
    BlockSampler,
    BlocksFrom,
    Run,
    forced_or_guessed,
    guess_block,
)
from demur.samplers.block_diffusion.canvas import Layout
from demur.samplers.block_diffusion.choice import Confidence
from demur.samplers.masked_diffusion.schedule import even_counts, most_confident, rounded_counts
from demur.samplers.step import (
    Pooling,
    require_at_least,
    require_count,
    require_one_of,
    require_switch,
)

Remasking = Literal["low_confidence", "sequential", "random", "low_confidence_static", "low_confidence_dynamic"]
Schedule = Literal["static", "dynamic", "rounded"]
OFFICIAL = {"low_confidence_static": "static", "low_confidence_dynamic": "dynamic"}
"""SDAR's names of remasking, which say the schedule too."""


class BlockDiffusion(BlockSampler):
    """Denoising block by block, as `generate` of SDAR and LLaDA-2.0 and A2D's `BD3LMSampler` do it.

    steps : T, shared equally by the blocks; by default as many as `denoising_steps` a block need.
    response_length : positions asked for (`gen_length`, `max_new_tokens`). By default 128, or what `steps` have room
        for at one token a step. The response ends with a whole block, so there can be up to ``block_length - 1`` more:
        the sampler's attribute `response_length` is the most there can be, and positions that a row lacks stay masked.
    block_length : of the blocks, which are counted from the prompt's first token; a response begins inside a block
        where its prompt ends inside one.
    denoising_steps : steps that a block may take (SDAR's `denoising_steps`, LLaDA-2's `steps`); by default its length,
        or its share of the steps where that is smaller. A share's further steps are idle.
    remasking : "low_confidence" commits the surest predictions, "sequential" the leftmost masks, "random" any.
        SDAR's names "low_confidence_static" and "low_confidence_dynamic" set `schedule` too.
    schedule : "static" commits ``block_length / denoising_steps`` a step, the remainder first. "dynamic" commits all
        that are surer than `threshold` if these are at least as many, else the static count. "rounded" is A2D's: the
        share of the masks left that is due, rounded.
    threshold : SDAR's `confidence_threshold`; compared strictly.
    temperature, top_k, top_p : 0 predicts the most likely token; above 0 tokens are drawn, after the filters.
    confidence : of a drawn token, "plain" before the filters, "filtered" after them.
    stop_ids : tokens after whose block a response ends, by default the model's `eos_token_ids`; an empty list for none.
        Later blocks stay masked and their steps are idle.
    eos_early_stop : end as soon as such a token is committed with nothing masked before it (LLaDA-2.0).
    minimal_topk : a block takes at most ``response_length // minimal_topk`` steps (LLaDA-2).
    blocks_from : "response" counts blocks from the response's first token, with padding before the prompt that fills
        its first block; the last block may be shorter (A2D).
    order : "left_to_right" is "sequential" with one token a step: autoregressive order over the same weights.
    seed, pooling : as in `MaskedDiffusion`; phi counts finished blocks with the states of their clean tokens.

    Attention is block-causal whatever the network's own default. Finished blocks are cached, exactly. A position at
    which the model predicts the mask token itself uses up its turn and stays masked, as officially.
    """

    def __init__(
        self,
        steps: int | None = None,
        response_length: int | None = None,
        *,
        block_length: int = 4,
        denoising_steps: int | None = None,
        remasking: Remasking = "low_confidence",
        schedule: Schedule = "static",
        threshold: float = 0.9,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        confidence: Confidence = "plain",
        stop_ids: Sequence[int] | None = None,
        eos_early_stop: bool = False,
        minimal_topk: int | None = None,
        blocks_from: BlocksFrom = "start",
        order: Literal["confidence", "left_to_right"] = "confidence",
        seed: int = 0,
        pooling: Pooling = "paper",
    ) -> None:
        for name, value, choices in (
            ("remasking", remasking, get_args(Remasking)),
            ("schedule", schedule, get_args(Schedule)),
            ("confidence", confidence, get_args(Confidence)),
            ("blocks_from", blocks_from, get_args(BlocksFrom)),
            ("order", order, ("confidence", "left_to_right")),
            ("pooling", pooling, get_args(Pooling)),
        ):
            require_one_of(name, value, choices)
        for name, number in (("temperature", temperature), ("threshold", threshold), ("top_p", top_p)):
            require_at_least(name, number, 0)
        require_switch("eos_early_stop", eos_early_stop)
        self.block_length = require_count("block_length", block_length)
        self.schedule = OFFICIAL.get(remasking, schedule)
        self.remasking = "low_confidence" if remasking in OFFICIAL else remasking
        self.threshold, self.temperature, self.top_p, self.confidence = threshold, temperature, top_p, confidence
        self.top_k, self.seed = require_count("top_k", top_k, 0), require_count("seed", seed, None)
        self.stop_ids = None if stop_ids is None else [require_count("stop_ids", one, 0) for one in stop_ids]
        self.eos_early_stop, self.minimal_topk, self.blocks_from = eos_early_stop, minimal_topk, blocks_from
        self.order, self.pooling = order, pooling
        self._set_lengths(steps, response_length, denoising_steps)

    @property
    def arguments(self) -> dict[str, Any]:
        names = ["block_length", "denoising_steps", "remasking", "schedule", "threshold", "temperature", "top_k"]
        names += ["top_p", "confidence", "stop_ids", "eos_early_stop", "minimal_topk", "blocks_from", "order", "seed"]
        lengths = {"steps": self.step_count, "response_length": self.asked_length}
        return {**lengths, **{name: getattr(self, name) for name in [*names, "pooling"]}}

    def from_left(self) -> BlockDiffusion | None:
        if self.order == "left_to_right":
            return None
        order = {"order": "left_to_right", "remasking": "sequential", "schedule": "static", "minimal_topk": None}
        sizes = {"steps": self.blocks * self.block_length, "denoising_steps": self.block_length}
        return type(self)(**{**self.arguments, **order, **sizes})

    def block_at(self, step: int, prompt_length: int) -> tuple[int, range]:
        number = min((step - 1) // self.share, self.blocks - 1)
        layout = self.layout(torch.tensor([prompt_length]))
        first, end = int(layout.first), int(layout.end - layout.first)
        begin = (first // self.block_length + number) * self.block_length - first
        return number * self.share + 1, range(max(0, begin), min(begin + self.block_length, end))

    def layout(self, lengths: torch.Tensor) -> Layout:
        if self.blocks_from == "start":
            return self.whole_blocks(lengths)
        lead = -lengths % self.block_length
        first = lead + lengths
        return Layout(lead, first, first + self.asked_length, self.block_length, self.response_length)

    def sight(self, prompt_length: int, positions: int) -> np.ndarray | None:
        lead = int(self.layout(torch.tensor([prompt_length])).lead)
        block = (lead + np.arange(positions)) // self.block_length
        seen: np.ndarray = block[None, :] <= block[:, None]
        return seen

    def advance(self, run: Run, place: int) -> torch.Tensor:
        canvas = run.canvas
        masked = canvas.block_masked & ~(run.finished | run.closed).unsqueeze(1)
        if place == 0:
            run.counts = self._counts(masked)
        due = masked.any(dim=1) & (place < self.denoising_steps)
        if self.schedule == "rounded":
            due = due & (run.counts[:, min(place, self.denoising_steps - 1)] > 0)
        self.look(run, due, place)
        masked = masked & due.unsqueeze(1)
        tokens, sure = self._guess(run, masked)
        chosen = self._chosen(sure, masked, run.counts[:, min(place, self.denoising_steps - 1)])
        canvas.write(chosen, forced_or_guessed(run, tokens))
        self._end(run, place, chosen, tokens)
        return due

    def _counts(self, masked: torch.Tensor) -> torch.Tensor:
        """Tokens that each step of a block commits at least, int64 ``[batch, denoising_steps]``."""
        if self.schedule == "rounded":
            rows = [rounded_counts(int(total), self.denoising_steps) for total in masked.sum(dim=1).tolist()]
        else:
            rows = [even_counts(self.block_length, self.denoising_steps)] * len(masked)
        filled = [row + [0] * (self.denoising_steps - len(row)) for row in rows]
        return torch.tensor(filled, device=masked.device)

    def _guess(self, run: Run, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens of the current block as predicted, and how sure each is, both ``[batch, block]``."""
        chosen = self.temperature, self.top_k, self.top_p, self.confidence
        tokens, sure = guess_block(run, wanted, *chosen)
        if self.remasking == "sequential" or self.order == "left_to_right":
            sure = -torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens).float()
        elif self.remasking == "random":
            sure = run.draws.of(torch.arange(len(tokens), device=tokens.device), tokens.shape[1]).float()
        return tokens, sure

    def _chosen(self, sure: torch.Tensor, masked: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        """The places that a step commits, bool ``[batch, block]``."""
        surest = most_confident(sure, masked, count)
        if self.schedule != "dynamic":
            return surest
        passing = masked & (sure > self.threshold)
        return torch.where((passing.sum(dim=1) >= count).unsqueeze(1), passing, surest)

    def _end(self, run: Run, place: int, chosen: torch.Tensor, tokens: torch.Tensor) -> None:
        """Close blocks that are done, and finish responses that are over."""
        canvas = run.canvas
        over = place + 1 >= self.denoising_steps
        done = ~canvas.block_masked.any(dim=1) | over
        stopping = stops_in_block(run)
        if self.eos_early_stop:
            first = torch.where(stopping, torch.arange(stopping.shape[1], device=stopping.device), stopping.shape[1])
            before = torch.arange(stopping.shape[1], device=stopping.device) < first.min(dim=1).values.unsqueeze(1)
            clear = ~(canvas.block_masked & before).any(dim=1) & stopping.any(dim=1)
            run.finished = run.finished | (clear & (chosen & torch.isin(tokens, run.stops)).any(dim=1))
        run.closed = run.closed | done
        run.finished = run.finished | (done & stopping.any(dim=1))

    def _set_lengths(self, steps: int | None, response_length: int | None, denoising_steps: int | None) -> None:
        if self.minimal_topk is not None:
            self.minimal_topk = require_count("minimal_topk", self.minimal_topk)
        asked = None if denoising_steps is None else require_count("denoising_steps", denoising_steps)
        steps = None if steps is None else require_count("steps", steps)
        if response_length is None:
            response_length = 128 if steps is None else room(steps, asked or self.block_length, self.block_length)
        self.asked_length = require_count("response_length", response_length)
        longest = self.block_length - 1 if self.blocks_from == "start" else 0
        self.blocks = -(-(longest + self.asked_length) // self.block_length)
        self.response_length = self.asked_length + longest
        self.step_count = self.blocks * (asked or self.block_length) if steps is None else steps
        self.require_steps()
        own = self.share if self.schedule == "rounded" else min(self.block_length, self.share)
        self.denoising_steps = own if asked is None else asked
        if self.minimal_topk:
            self.denoising_steps = max(1, min(self.denoising_steps, self.asked_length // self.minimal_topk))
        if asked is not None and self.denoising_steps > self.share:
            raise InputError(
                f"steps {self.step_count} give each of {self.blocks} blocks {self.share}, fewer than denoising_steps "
                f"{self.denoising_steps}; give steps={self.blocks * self.denoising_steps}, or leave one of them out"
            )
        if self.order == "left_to_right" and self.denoising_steps < self.block_length:
            raise InputError(
                f"order='left_to_right' takes a step for each of {self.block_length} positions of {self.blocks} "
                f"blocks; give steps={self.blocks * self.block_length}"
            )


def stops_in_block(run: Run) -> torch.Tensor:
    """Where the current block holds a token that ends the response, bool ``[batch, block]``."""
    return run.canvas.block_answers & torch.isin(run.canvas.block_tokens, run.stops)


def room(steps: int, block_steps: int, block: int) -> int:
    """Response positions that `steps` have room for, in blocks of `block_steps` each; one block is not counted.

    That one is for prompts that end inside a block. Fewer steps than two blocks need are shared by two.
    """
    blocks = min(max(2, steps // block_steps), steps)
    return max(1, (blocks - 1) * block)
