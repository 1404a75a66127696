"""Uniform diffusion: a canvas of random tokens is denoised as a whole, canvas after canvas (DiffusionGemma).

In: a DiffusionGemma model and a left-padded batch. Out: T `Step`s, as they are made. The parts of the network's own
`generate` do the work, and each row draws the numbers that it draws there, so tokens are its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch

from demur.errors import InputError
from demur.looks import Looks
from demur.models import Layer, Model
from demur.samplers.step import (
    FREE,
    Pooling,
    Prefill,
    Sampler,
    Step,
    Steps,
    checked_inputs,
    forced_tokens,
    require_count,
    require_one_of,
    row_seeds,
)
from demur.samplers.uniform_diffusion.canvases import Canvases, Denoised


class UniformDiffusion(Sampler):
    """Denoising of whole canvases, as DiffusionGemma's `generate` does it.

    steps : T, over all canvases: each has ``T / canvases`` denoising steps. A canvas that is stable earlier
        (the network's own criterion) idles for the rest of its share, so step t always belongs to the same
        canvas; after end-of-sequence the remaining steps are idle.
    response_length : a multiple of the network's canvas length; `Model.default_sampler` takes one canvas.
    seed : of all draws; each row has its own stream, whatever its batch.
    pooling : "paper" and "released" are one here: there is no mask, every position of a canvas holds a token
        at every step. phi is the mean over the positions of the canvases begun so far, the current canvas
        with the states of the step's own pass, a finished one with those of its last.

    Temperatures, entropy bound and stopping thresholds are those of the network's generation config.
    `predicted` is the draft of the current canvas (the arg-max), pad in later ones. A canvas is committed
    when its denoising is over, up to end-of-sequence; what the network fills in behind that is not.
    Forced tokens stand on their canvas from its first pass, and the network's logits are set to them at every step.
    They are committed from step 1 on; an end-of-sequence token in front of them ends the response all the same.
    The prompt is read apart from the canvas, so there is no look 0; the window of a look is the end of the current
    canvas.
    """

    family = "uniform-diffusion"
    revises = True
    sees_prompt = False

    def __init__(
        self, steps: int = 32, response_length: int = 256, *, seed: int = 0, pooling: Pooling = "paper"
    ) -> None:
        steps, seed = require_count("steps", steps), require_count("seed", seed, None)
        response_length = require_count("response_length", response_length)
        require_one_of("pooling", pooling, get_args(Pooling))
        self.step_count, self.response_length = steps, response_length
        self.seed, self.pooling = seed, pooling

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "steps": self.step_count,
            "response_length": self.response_length,
            "seed": self.seed,
            "pooling": self.pooling,
        }

    @torch.no_grad()
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
    ) -> Steps:
        ids, mask = checked_inputs(model, self, input_ids, attention_mask)
        forced = forced_tokens(prefill, len(ids), self.response_length, ids.device)
        share = self._steps_of_a_canvas(model)
        indices = [model.layer_index(layer) for layer in layers]
        canvases = Canvases(model, ids, mask, forced, row_seeds(ids, mask, self.seed, samples), share, indices)
        seen = _Seen(model, canvases, len(indices), (looks and looks.window) or 1)
        going = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
        for index in range(1, self.step_count + 1):
            canvas, step = divmod(index - 1, share)
            if step == 0:
                canvases.begin(canvas, going)
            done = canvases.denoise(going, left=share - step)
            if done is not None:
                seen.add(done)
                going[done.rows[done.ended]] = False
            sent = yield seen.step(index, done, window=bool(looks and index in looks))
            if sent is not None:
                going &= ~sent.to(going.device)

    def _steps_of_a_canvas(self, model: Model) -> int:
        length = int(model.network.config.canvas_length)
        canvases, rest = divmod(self.response_length, length)
        if rest:
            raise InputError(
                f"response_length {self.response_length} is no multiple of the canvas length {length} of {model.name}"
            )
        if self.step_count % canvases:
            raise InputError(f"steps {self.step_count} cannot be shared evenly by {canvases} canvases of {length}")
        return self.step_count // canvases


class _Seen:
    """What a batch's steps are made of: drafts, what is committed of them, and pooled states."""

    def __init__(self, model: Model, canvases: Canvases, layers: int, latest: int) -> None:
        self.canvases, self.latest_positions = canvases, latest
        drafts = canvases.drafts
        self.eos = torch.tensor(model.eos_token_ids, dtype=torch.int64, device=drafts.device)
        self.forced, self.is_forced = canvases.forced, canvases.forced != FREE
        self.committed = self.forced.masked_fill(~self.is_forced, model.pad_token_id)
        self.is_committed = self.is_forced.clone()
        self.phi = torch.zeros(len(drafts), layers, model.width, device=drafts.device)
        self.window, self.sums = self.phi.clone(), self.phi.clone()  # sums over the positions of finished canvases

    def add(self, done: Denoised) -> None:
        """Count a denoising step."""
        rows, place = done.rows, self.canvases.place
        sums = self.sums[rows] + torch.stack([state.float().sum(dim=1) for state in done.states], dim=1)
        latest = [state[:, -self.latest_positions :].float().mean(dim=1) for state in done.states]
        self.phi[rows], self.window[rows] = sums / place.stop, torch.stack(latest, dim=1)
        over = rows[done.over]
        self.sums[over] = sums[done.over]
        ends = torch.isin(self.canvases.drafts[over, place], self.eos)
        self.committed[over, place] = self._drafts()[over, place]
        self.is_committed[over, place] |= ends.cumsum(dim=1) - ends.long() == 0

    def step(self, index: int, done: Denoised | None, *, window: bool) -> Step:
        """The step that was just made."""
        idle = torch.ones(len(self.phi), dtype=torch.bool, device=self.phi.device)
        if done is not None:
            idle[done.rows] = False
        committed, known = self.committed.clone(), self.is_committed.clone()
        latest = self.window.clone() if window else None
        return Step(index, committed, self._drafts(), self.phi.clone(), known, latest, idle)

    def _drafts(self) -> torch.Tensor:
        """The drafts with every forced token, behind an end and in canvases to come too."""
        return torch.where(self.is_forced, self.forced, self.canvases.drafts)
