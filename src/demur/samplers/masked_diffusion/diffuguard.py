"""DiffuGuard (Li et al., arXiv 2509.24296): masked diffusion with its two defenses, written from the paper.

In: a masked diffusion model and a batch. Out: `Step`s, as from `MaskedDiffusion`. Stochastic annealing remasking mixes
the confidence by which tokens are kept with noise, most in the first steps. Block-level audit and repair compares the
states of a prompt with and without text that was planted in the response, and where they differ too much, fills in most
of the first block once more.
"""

from __future__ import annotations

from typing import Any

import torch

from demur.errors import InputError
from demur.samplers.draws import Draws
from demur.samplers.masked_diffusion.canvas import Canvas
from demur.samplers.masked_diffusion.sampler import MaskedDiffusion
from demur.samplers.masked_diffusion.schedule import Quota, even_counts
from demur.samplers.step import FREE, Pooling, require_at_least, require_count


class DiffuGuard(MaskedDiffusion):
    """`MaskedDiffusion` of the surest tokens on an even schedule, with DiffuGuard's defenses.

    steps : T, of which `repair_steps` belong to the repair. block_length : the first block is the one that is audited;
        by default there is one block.
    alpha_0 : weight of the noise at the first denoising step n = 1. It falls evenly: tokens are kept by
        ``(1 - alpha_n) * probability + alpha_n * U(0, 1)`` with ``alpha_n = alpha_0 * (1 - (n - 1) / (N - 1))``.
    lambda_ : a first block is repaired where the safety divergence, see `safety_divergence`, is above it.
    gamma : share of the first block's own tokens that a repair masks again, drawn at random, rounded down. None of them
        may come back at its place.
    repair_steps : steps behind the first block's, in which a repaired block is filled in again, evenly and by
        probability alone; idle for the other rows. By default as many as a block has; 0 for no repair.
    The other arguments are those of `MaskedDiffusion`.

    The paper leaves open which state is compared: here it is that of the prompt's last token at the last layer. It
    gives the block more passes; here these are part of T, so that a signal's steps mean the same in every row. The
    defaults of `alpha_0`, `lambda_` and `gamma` are ours.
    """

    edits = True
    repairs = True

    def __init__(
        self,
        steps: int = 32,
        response_length: int = 128,
        *,
        block_length: int | None = None,
        alpha_0: float = 0.3,
        lambda_: float = 0.1,
        gamma: float = 0.9,
        repair_steps: int | None = None,
        temperature: float = 0.0,
        cfg_scale: float = 0.0,
        suppress_eos: bool = False,
        seed: int = 0,
        pooling: Pooling = "paper",
    ) -> None:
        for name, value in (("alpha_0", alpha_0), ("lambda_", lambda_), ("gamma", gamma)):
            require_at_least(name, value, 0)
            if name != "lambda_" and value > 1:
                raise InputError(f"{name} is {value!r}; it must be a share, from 0 to 1")
        steps = require_count("steps", steps)
        blocks = max(1, require_count("response_length", response_length) // (block_length or response_length))
        if repair_steps is None:
            repair_steps = steps - blocks * (steps // (blocks + 1))
        self.repair_steps = require_count("repair_steps", repair_steps, 0)
        if self.repair_steps >= steps:
            raise InputError(f"repair_steps {repair_steps} leave none of {steps} steps to denoise in; give more steps")
        self.alpha_0, self.lambda_, self.gamma = alpha_0, lambda_, gamma
        super().__init__(
            steps - self.repair_steps,
            response_length,
            block_length=block_length,
            temperature=temperature,
            cfg_scale=cfg_scale,
            suppress_eos=suppress_eos,
            seed=seed,
            pooling=pooling,
        )
        self.denoising_steps, self.step_count = self.step_count, steps

    @classmethod
    def of(cls, sampler: MaskedDiffusion, **arguments: Any) -> DiffuGuard:
        """The defended sampler with as many steps, the same response and blocks, and further `arguments`."""
        names = ("response_length", "block_length", "temperature", "cfg_scale", "suppress_eos", "seed", "pooling")
        shared = {"steps": sampler.step_count, **{name: getattr(sampler, name) for name in names}}
        return cls(**{**shared, **arguments})

    @property
    def arguments(self) -> dict[str, Any]:
        names = ["response_length", "block_length", "alpha_0", "lambda_", "gamma", "repair_steps", "temperature"]
        names += ["cfg_scale", "suppress_eos", "seed", "pooling"]
        return {"steps": self.step_count, **{name: getattr(self, name) for name in names}}

    def from_left(self) -> None:
        """None: what is kept is drawn, so there is no such order."""

    def block_at(self, step: int, prompt_length: int) -> tuple[int, range]:
        raise InputError("DiffuGuard repairs its first block itself; take MaskedDiffusion")

    def alpha(self, index: int) -> float:
        """The weight of the noise at step `index` of T; 0 while a block is repaired."""
        before = self.denoising_steps * self.block_length // self.response_length
        if before < index <= before + self.repair_steps:
            return 0.0
        n = index if index <= before else index - self.repair_steps
        return self.alpha_0 * (1 - (n - 1) / max(1, self.denoising_steps - 1))

    def _quota(self) -> Quota:
        return _RepairQuota(self)

    def _begin(self, index: int, canvas: Canvas, quota: Quota, draws: Draws, since: torch.Tensor) -> None:
        assert isinstance(quota, _RepairQuota)
        if not self.repair_steps or index != quota.first + 1:
            return
        flagged = (divergence_on(canvas) > self.lambda_).nonzero().squeeze(1)
        quota.remasked = torch.zeros_like(canvas.masked)
        own = ~canvas.given[flagged, canvas.start : canvas.end] & ~canvas.masked[flagged]
        own[:, self.block_length :] = False
        noise = draws.of(flagged, own.shape[1]) if len(flagged) else torch.zeros(own.shape, device=own.device)
        ranks = noise.masked_fill(~own, torch.inf).argsort(dim=1).argsort(dim=1)
        quota.remasked[flagged] = own & (ranks < (own.sum(dim=1) * self.gamma).long().unsqueeze(1))
        canvas.remask(quota.remasked)
        since[quota.remasked] = -1

    def _guess(
        self, canvas: Canvas, masked: torch.Tensor, draws: Draws, index: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        predicted, confidence = super()._guess(canvas, masked, draws, index)
        alpha = self.alpha(index)
        if alpha > 0:
            noise = draws.of(torch.arange(len(masked), device=masked.device), masked.shape[1]).float()
            confidence = (1 - alpha) * confidence + alpha * noise
        return predicted, confidence

    def _require_no_draws(self, before: int) -> None:
        if before:
            raise InputError("a prompt holds mask tokens, which DiffuGuard cannot tell from the response; use infill")


class _RepairQuota(Quota):
    """The even quota, with the repair's steps behind those of the first block.

    first : the steps of a block. remasked : bool ``[batch, response]``, what a repair fills in.
    """

    def __init__(self, sampler: DiffuGuard) -> None:
        super().__init__("static", sampler.denoising_steps, sampler.response_length, sampler.block_length, 0.0)
        self.first, self.repair_steps = self.block_steps, sampler.repair_steps
        self.remasked = torch.empty(0, dtype=torch.bool)
        self.repairs = torch.empty(0)  # tokens of each repair step, int64 [batch, repair_steps]

    def at(self, index: int, masked: torch.Tensor, off: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        if index <= self.first:
            return super().at(index, masked, off)
        place = index - self.first - 1
        if place >= self.repair_steps:
            return super().at(index - self.repair_steps, masked, off)
        open_places = masked & self.remasked
        if place == 0:
            rows = [even_counts(int(total), self.repair_steps) for total in open_places.sum(dim=1).tolist()]
            self.repairs = torch.tensor(rows, device=masked.device)
        return open_places, self.repairs[:, place]


def divergence_on(canvas: Canvas) -> torch.Tensor:
    """The safety divergence of each prompt of a canvas, float64 ``[batch]``: 0 where no text was planted.

    ``1 - cos(h_origin, h_0)``, h_origin the state of the prompt before an empty response, h_0 that of the prompt before
    the response as it began, with the text that was planted in it.
    """
    planted = canvas.given[:, canvas.prompt_end : canvas.end]
    found = torch.zeros(len(planted), dtype=torch.float64, device=planted.device)
    rows = planted.any(dim=1).nonzero().squeeze(1)
    if not len(rows):
        return found
    tokens = canvas.tokens[rows].masked_fill(~canvas.given[rows], canvas.mask_id)
    ids, mask = tokens[:, : canvas.prompt_end], canvas.attention_mask[rows, : canvas.prompt_end]
    forced = torch.where(planted, canvas.tokens[:, canvas.prompt_end : canvas.end], FREE)[rows]
    last = [canvas.model.layer_index("last")]
    states = []
    for response in (forced, torch.full_like(forced, FREE)):
        seen = Canvas(canvas.model, ids, mask, response, last)
        seen.look(torch.arange(len(rows), device=rows.device))
        states.append(seen.prompt[0].double())
    found[rows] = 1 - torch.cosine_similarity(states[0], states[1], dim=1)
    return found
