"""Uniform diffusion: a canvas of random tokens is denoised as a whole, canvas after canvas (DiffusionGemma).

In: a DiffusionGemma model and a left-padded batch. Out: T `Step`s. The network's own `generate` does the
work, a row at a time: every step is caught on the way, so tokens are its tokens by construction, and a row
draws the same numbers and sees no padding whatever its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import RLock
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

_ONE_AT_A_TIME = RLock()
"""The network draws from torch's one generator, which two threads would share."""


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
    Response tokens cannot be forced: a prefill is an `InputError`. The prompt is read apart from the canvas, so
    there is no look 0; the window of a look is the end of the current canvas.
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
        if (forced_tokens(prefill, len(ids), self.response_length, ids.device) != FREE).any():
            raise InputError("UniformDiffusion cannot force response tokens; put them at the end of the prompt")
        share = self._steps_of_a_canvas(model)
        indices = [model.layer_index(layer) for layer in layers]
        seeds = row_seeds(ids, mask, self.seed, samples)
        prompts = [row[real.bool()] for row, real in zip(ids, mask, strict=True)]
        latest = (looks and looks.window) or 1
        rows = [self._row(model, row, share, indices, seed, latest) for row, seed in zip(prompts, seeds, strict=True)]
        for index in range(1, self.step_count + 1):
            moments = [row[index - 1] for row in rows]
            yield Step(
                index,
                torch.stack([moment.committed for moment in moments]),
                torch.stack([moment.predicted for moment in moments]),
                torch.stack([moment.phi for moment in moments]),
                torch.stack([moment.is_committed for moment in moments]),
                torch.stack([moment.window for moment in moments]) if looks and index in looks else None,
            )

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

    def _row(
        self, model: Model, prompt: torch.Tensor, share: int, layers: Sequence[int], seed: int, latest: int
    ) -> list[_Moment]:
        """One prompt's generation, a moment a step."""
        devices = [model.device] if model.device.type == "cuda" else []
        with _ONE_AT_A_TIME, torch.random.fork_rng(devices), model.states(layers) as states:
            torch.manual_seed(seed)
            watch = _Watch(model, states, self.response_length, self.step_count, share, latest)
            model.network.generate(
                prompt.unsqueeze(0),
                streamer=watch,
                max_new_tokens=self.response_length,
                # A max_length of the generation config would win over max_new_tokens if that is 256.
                max_length=len(prompt) + self.response_length,
                max_denoising_steps=share,
                eos_token_id=model.eos_token_ids or None,
            )
        return watch.moments


@dataclass(frozen=True)
class _Moment:
    """One row of a `Step`."""

    committed: torch.Tensor
    predicted: torch.Tensor
    phi: torch.Tensor
    is_committed: torch.Tensor
    window: torch.Tensor


class _Watch:
    """A streamer for `generate`: makes a moment of every draft and fills idle steps."""

    def __init__(
        self, model: Model, states: list[torch.Tensor], response: int, steps: int, share: int, latest: int
    ) -> None:
        self.states, self.steps, self.share, self.eos = states, steps, share, model.eos_token_ids
        self.committed = torch.full((response,), model.pad_token_id, dtype=torch.int64, device=model.device)
        self.predicted = self.committed.clone()
        self.is_committed = torch.zeros_like(self.committed, dtype=torch.bool)
        self.moments: list[_Moment] = []
        self.done = 0  # response positions of finished canvases
        self.sums: torch.Tensor | float = 0.0  # of their states, [layers, width]
        self.latest = self.window = torch.empty(0)
        self.window_length = latest
        self.prompt_seen = False

    def put_draft(self, value: torch.Tensor) -> None:
        """A denoising step is over: `value` is the draft of the current canvas, ``[1, canvas]``."""
        draft = value[0].to(self.predicted)
        self.latest = torch.stack([state[0].float().sum(dim=0) for state in self.states])
        self.window = torch.stack([state[0, -self.window_length :].float().mean(dim=0) for state in self.states])
        self.predicted[self.done : self.done + len(draft)] = draft
        self._keep((self.sums + self.latest) / (self.done + len(draft)))

    def put(self, value: torch.Tensor) -> None:
        """The prompt at first; then a finished canvas, ``[1, canvas]``, with what follows its end padded."""
        if not self.prompt_seen:
            self.prompt_seen = True
            return
        tokens = value[0].to(self.committed)
        place = slice(self.done, self.done + len(tokens))
        ends = torch.isin(tokens, torch.tensor(self.eos, dtype=tokens.dtype, device=tokens.device))
        self.committed[place] = self.predicted[place] = tokens
        self.is_committed[place] = ends.cumsum(dim=0) - ends.long() == 0
        self.sums = self.sums + self.latest
        self.done += len(tokens)
        phi = self.moments.pop().phi
        self._keep(phi)
        # Idle until the next canvas is due.
        while len(self.moments) % self.share:
            self._keep(phi)

    def end(self) -> None:
        """Generation is over, perhaps before its last canvas."""
        while len(self.moments) < self.steps:
            self._keep(self.moments[-1].phi)

    def _keep(self, phi: torch.Tensor) -> None:
        kept = self.committed.clone(), self.predicted.clone(), phi, self.is_committed.clone(), self.window
        self.moments.append(_Moment(*kept))
