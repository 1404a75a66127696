"""What the samplers of block diffusion have in common: blocks, their share of the steps, phi, and the end.

In: a model and a left-padded batch. Out: T `Step`s. Every block has the same share of them, so that step t belongs to
the same block in every row; a row that needs fewer idles for the rest of the share. What a step commits is left to the
subclasses.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from demur.errors import InputError
from demur.looks import Looks
from demur.models import Layer, Model
from demur.samplers.block_diffusion.canvas import BlockCanvas, Layout, require_slots
from demur.samplers.block_diffusion.choice import Confidence, guess_token
from demur.samplers.draws import Draws
from demur.samplers.head import positions_at_once
from demur.samplers.step import (
    Pooling,
    Prefill,
    Sampler,
    Step,
    Steps,
    checked_inputs,
    forced_tokens,
    row_generators,
    whole_responses,
)

BlocksFrom = Literal["start", "response"]


@dataclass
class Run:
    """A batch under way.

    finished : rows that need no step any more; closed : rows whose current block is done, both bool ``[batch]``.
    responses : int64 ``[batch, width]`` to force in place of predictions, or None. stops : ids that end a response.
    counts : what a sampler counts of each row in a block; its own.
    """

    canvas: BlockCanvas
    draws: Draws
    finished: torch.Tensor
    closed: torch.Tensor
    responses: torch.Tensor | None
    stops: torch.Tensor
    counts: torch.Tensor

    def give_up(self, rows: torch.Tensor | None) -> None:
        """Do nothing more for `rows`, bool ``[batch]``."""
        if rows is not None:
            self.finished = self.finished | rows.to(self.finished.device)


class BlockSampler(Sampler):
    """Base of the samplers that fill a response block by block.

    block_length, asked_length, stop_ids, seed, pooling : as in `BlockDiffusion`. blocks : how many a response can have,
    whatever the length of its prompt.
    """

    family = "masked-diffusion"
    revises = True
    reorders: ClassVar[bool] = False
    block_length: int
    asked_length: int
    stop_ids: list[int] | None
    seed: int
    pooling: Pooling
    blocks: int

    @property
    def share(self) -> int:
        """Steps of a block."""
        return self.step_count // self.blocks

    @abstractmethod
    def layout(self, lengths: torch.Tensor) -> Layout:
        """Where prompts of `lengths` tokens, int64 ``[batch]``, and their responses lie."""

    @abstractmethod
    def advance(self, run: Run, place: int) -> torch.Tensor:
        """Step `place` of the current block's share, from 0; which rows it did something for, bool ``[batch]``."""

    def steps(
        self,
        model: Model,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        layers: Sequence[Layer] = ("last",),
        prefill: Prefill | None = None,
        samples: Sequence[int] | None = None,
        looks: Looks | None = None,
        banned: torch.Tensor | None = None,
    ) -> Steps:
        return self._steps(model, input_ids, attention_mask, layers, prefill, None, samples, looks, banned)

    def forced_steps(
        self,
        model: Model,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        responses: torch.Tensor,
        layers: Sequence[Layer] = ("last",),
        samples: Sequence[int] | None = None,
        looks: Looks | None = None,
    ) -> Steps:
        """The blocks are filled in the order and at the pace of `steps`, with the tokens of the response."""
        return self._steps(model, input_ids, attention_mask, layers, None, responses, samples, looks, None)

    @torch.no_grad()
    def _steps(
        self,
        model: Model,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        layers: Sequence[Layer],
        prefill: Prefill | None,
        responses: torch.Tensor | None,
        samples: Sequence[int] | None,
        looks: Looks | None,
        banned: torch.Tensor | None,
    ) -> Steps:
        ids, mask = checked_inputs(model, self, input_ids, attention_mask)
        forced = forced_tokens(prefill, len(ids), self.response_length, ids.device)
        if responses is not None:
            responses = whole_responses(responses, len(ids), self.response_length, ids.device)
        layout = self.layout(mask.sum(dim=1))
        require_slots(model, layout)
        indices = [model.layer_index(layer) for layer in layers]
        stops = model.eos_token_ids if self.stop_ids is None else self.stop_ids
        run = Run(
            canvas=BlockCanvas(
                model,
                ids,
                mask,
                forced,
                indices,
                layout,
                shifted=model.logits_shifted,
                reordered=self.reorders,
            ),
            draws=Draws(row_generators(ids, mask, self.seed, samples), ids.device),
            finished=torch.zeros(len(ids), dtype=torch.bool, device=ids.device),
            closed=torch.zeros(len(ids), dtype=torch.bool, device=ids.device),
            responses=responses,
            stops=torch.tensor(stops, dtype=torch.int64, device=ids.device),
            counts=torch.zeros(len(ids), dtype=torch.int64, device=ids.device),
        )
        phi = torch.empty(0)
        canvas = run.canvas
        canvas.banned = None if banned is None else banned.to(ids.device)
        canvas.keeps_whole = bool(looks and looks.window)
        since = canvas.committed.long() - 1  # the step at which a position was committed, -1 where it is not
        if looks and 0 in looks:
            canvas.look(torch.arange(len(ids), device=ids.device))
            before = canvas.prompt.clone()
            sent = yield Step(0, canvas.response, canvas.response, before, canvas.committed, before)
            run.give_up(sent)
        for index in range(1, self.step_count + 1):
            number, place = divmod(index - 1, self.share)
            worked = torch.zeros_like(run.finished)
            canvas.edited = torch.zeros_like(canvas.edited)
            if number < self.blocks:
                if place == 0:
                    self.begin(run, number)
                worked = self.advance(run, place)
                phi = self._phi(canvas, phi, worked | (place == 0) & ~run.finished)
            committed = canvas.committed
            since[committed & (since < 0)] = index
            window = None
            if looks and looks.window and index in looks:
                window = canvas.mean_latest(since, looks.window, everything=self.pooling == "released")
            sent = yield Step(index, canvas.response, canvas.predicted, phi, committed, window, ~worked)
            run.give_up(sent)

    def begin(self, run: Run, number: int) -> None:
        """Move every row to its block `number`; rows that have no such block are finished."""
        run.canvas.begin(number)
        run.finished = run.finished | (run.canvas.start >= run.canvas.layout.end)
        run.closed = torch.zeros_like(run.closed)

    def look(self, run: Run, due: torch.Tensor, place: int) -> None:
        """Run the network for the rows that are `due`, and at a block's first step for all that are not finished."""
        seen = due | (~run.finished if place == 0 else torch.zeros_like(due))
        run.canvas.look(seen.nonzero().squeeze(1))

    def _phi(self, canvas: BlockCanvas, before: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
        """The pooled state of every row, anew for those that changed, float32 ``[batch, layers, width]``."""
        answers = canvas.block_answers
        committed = answers & (canvas.block_tokens != canvas.mask_id)
        answers = answers & canvas.looked.unsqueeze(1)  # a pass has reached the block
        committed = committed & answers
        everything = canvas.mean_states(answers, 1)
        # Before any position of the response has a state, that of the prompt's last token stands for it.
        none = (canvas.counts[1] + answers.sum(dim=1)) == 0
        everything = torch.where(none[:, None, None], canvas.prompt, everything)
        phi = everything
        if self.pooling == "paper":
            pooled = canvas.mean_states(committed, 0)
            counted = (canvas.counts[0] + committed.sum(dim=1)) > 0
            phi = torch.where(counted[:, None, None], pooled, everything)
        return torch.where(changed[:, None, None], phi, before) if before.numel() else phi

    def whole_blocks(self, lengths: torch.Tensor) -> Layout:
        """Blocks counted from the first token of the prompt; the response ends with a whole one."""
        end = (lengths + self.asked_length).add(self.block_length - 1) // self.block_length * self.block_length
        lead = torch.zeros_like(lengths)
        return Layout(lead, lengths, end, self.block_length, self.response_length)

    def require_steps(self) -> None:
        """Refuse fewer steps than blocks."""
        if self.share < 1:
            raise InputError(
                f"steps {self.step_count} are fewer than the {self.blocks} blocks of {self.block_length} that a "
                f"response of {self.asked_length} can have; give at least {self.blocks} steps, or a shorter response"
            )


def guess_block(
    run: Run,
    wanted: torch.Tensor,
    temperature: float,
    top_k: int,
    top_p: float,
    confidence: Confidence,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens of the current block as predicted at the `wanted` places, and how sure each is, ``[batch, block]``.

    Elsewhere the tokens that stand there, at 0.
    """
    canvas = run.canvas
    tokens = canvas.block_tokens
    sure = torch.zeros(tokens.shape, device=tokens.device)
    rows, places = wanted.nonzero(as_tuple=True)
    size = positions_at_once(int(canvas.model.config.vocab_size), canvas.tokens.device)
    for row, place in zip(torch.split(rows, size), torch.split(places, size), strict=True) if len(rows) else ():
        uniforms = run.draws.of(row, 1).squeeze(1) if temperature > 0 else None
        found = guess_token(canvas.logits(row, place), temperature, top_k, top_p, confidence, uniforms)
        tokens[row, place], sure[row, place] = found
    canvas.note(wanted & canvas.block_masked, tokens)
    return tokens, sure


def is_forced(canvas: BlockCanvas) -> torch.Tensor:
    """Which places of the current block were forced from the start, bool ``[batch, block]``."""
    answers = canvas.block_slots - canvas.layout.first.unsqueeze(1)
    inside = (answers >= 0) & (answers < canvas.layout.width)
    return inside & canvas.forced.gather(1, answers.clamp(0, canvas.layout.width - 1))


def forced_or_guessed(run: Run, tokens: torch.Tensor) -> torch.Tensor:
    """The tokens to commit in the current block, int64 ``[batch, block]``; of a whole response, where one is forced."""
    if run.responses is None:
        return tokens
    answers = run.canvas.block_slots - run.canvas.layout.first.unsqueeze(1)
    return run.responses.gather(1, answers.clamp(0, run.canvas.layout.width - 1))
