"""Masked diffusion: the response is a canvas of masks, and each step commits the surest predictions.

In: a masked-diffusion model and a left-padded batch. Out: T `Step`s, token for token those of the official
samplers of LLaDA and Dream. How the network is run is the canvas's business, how sure it is the guess's.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal, get_args

import torch

from demur.errors import InputError
from demur.looks import Looks
from demur.models import Layer, Model
from demur.samplers.draws import Draws
from demur.samplers.filters import keep_top_k, keep_top_p
from demur.samplers.head import positions_at_once
from demur.samplers.masked_diffusion.canvas import Canvas
from demur.samplers.masked_diffusion.confidence import Remasking, guess
from demur.samplers.masked_diffusion.schedule import DREAM_LAST_TIME, Quota, Schedule, latest_of, most_confident
from demur.samplers.step import (
    Pooling,
    Prefill,
    Sampler,
    Step,
    Steps,
    checked_inputs,
    forced_tokens,
    require_at_least,
    require_count,
    require_one_of,
    require_switch,
    row_generators,
    whole_responses,
)

Order = Literal["confidence", "left_to_right"]
OFFICIAL: dict[str, Remasking] = {"maskgit_plus": "low_confidence", "topk_margin": "margin"}
"""Dream's names of its rules (`alg`), which are understood too."""


class MaskedDiffusion(Sampler):
    """Iterative unmasking, as LLaDA's `generate` and Dream's `diffusion_generate` do it.

    steps : T. response_length : R, the number of response positions.
    block_length : R is worked off in blocks of this length, left to right, each in its share of the steps;
        by default in one.
    remasking : which predictions are kept: "low_confidence" (highest probability of the chosen token),
        "entropy" (lowest entropy), "margin" (largest gap between the two best), "random". "origin" (Dream) keeps each
        with the probability ``1 - s / t``. Dream's names "maskgit_plus" and "topk_margin" are understood.
    schedule : how many. "static" spreads a block's masks evenly over its steps, the remainder over the first
        ones (LLaDA). "dream" commits ``int(masked * (1 - s / t))`` on Dream's time grid and the rest at the end.
        "rounded" commits that share of what is left, rounded, and idles where that is nothing (A2D's MDLM; the last
        block may be shorter). "rnd1" leaves ``floor(total * (T - t) / T)`` masked. "dynamic" commits whatever reaches
        `threshold` in a row's first unfinished block, at least one; it needs as many steps as it needs: where T is
        more, the last ones are idle and phi stays, where T is less, the last one commits all that is left.
    threshold : least confidence for "dynamic", which takes "low_confidence" or "margin".
    temperature : 0 predicts the most likely token. cfg_scale : classifier-free guidance, 0 for none.
    order : "left_to_right" commits the leftmost masks instead of the surest; with as many steps as positions
        that is autoregressive order over the same weights.
    suppress_eos : end-of-sequence tokens are never predicted.
    alg_temp, top_p, top_k, eps : Dream's. With `alg_temp` above 0 positions are drawn by the softmax of confidence
        over it. `top_p`, then `top_k`, leave out unlikely tokens, for confidence too. `eps` ends the time grid.
    end_token : stands behind the response in every pass and is no part of it (RND1).
    seed : of all draws; each row has its own stream, whatever its batch.
    pooling : "paper" averages the states of the positions committed after the step (arXiv 2602.02600, section
        3.1), "released" those of all response positions, masked ones included, as the authors' released code.
        While nothing is committed, "paper" is that mean too: the paper leaves it open, and it must be finite.

    States are those of the step's own forward pass; under guidance, of the row with its prompt. A position
    at which the model predicts the mask token itself uses up its turn and stays masked, as officially.
    """

    family = "masked-diffusion"
    revises = True
    repairs: ClassVar[bool] = False
    """Whether committed tokens can be taken back, in steps that do nothing for the other rows."""
    _later = MappingProxyType({"alg_temp": 0.0, "top_p": 1.0, "top_k": 0, "eps": DREAM_LAST_TIME, "end_token": None})

    def __init__(
        self,
        steps: int = 32,
        response_length: int = 128,
        *,
        block_length: int | None = None,
        remasking: Remasking = "low_confidence",
        schedule: Schedule = "static",
        threshold: float = 0.9,
        temperature: float = 0.0,
        cfg_scale: float = 0.0,
        order: Order = "confidence",
        suppress_eos: bool = False,
        alg_temp: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        eps: float = DREAM_LAST_TIME,
        end_token: int | None = None,
        seed: int = 0,
        pooling: Pooling = "paper",
    ) -> None:
        steps = require_count("steps", steps)
        response_length = require_count("response_length", response_length)
        block_length = response_length if block_length is None else require_count("block_length", block_length)
        seed = require_count("seed", seed, None)
        require_switch("suppress_eos", suppress_eos)
        numbers = {"temperature": temperature, "cfg_scale": cfg_scale, "threshold": threshold}
        for name, value in {**numbers, "alg_temp": alg_temp, "top_p": top_p, "eps": eps}.items():
            require_at_least(name, value, 0)
        remasking = OFFICIAL.get(remasking, remasking)
        require_one_of("remasking", remasking, get_args(Remasking))
        require_one_of("schedule", schedule, get_args(Schedule))
        require_one_of("order", order, get_args(Order))
        require_one_of("pooling", pooling, get_args(Pooling))
        self.step_count, self.response_length, self.block_length = steps, response_length, block_length
        self.remasking, self.schedule, self.threshold = remasking, schedule, threshold
        self.temperature, self.cfg_scale, self.order = temperature, cfg_scale, order
        self.suppress_eos, self.seed, self.pooling = suppress_eos, seed, pooling
        self.alg_temp, self.top_p, self.eps = alg_temp, top_p, eps
        self.top_k = require_count("top_k", top_k, 0)
        self.end_token = None if end_token is None else require_count("end_token", end_token, 0)
        self._require_consistent()

    @property
    def arguments(self) -> dict[str, Any]:
        names = ["response_length", "block_length", "remasking", "schedule", "threshold", "temperature"]
        names += ["cfg_scale", "order", "suppress_eos", "seed", "pooling"]
        names += [name for name, unset in self._later.items() if getattr(self, name) != unset]
        return {"steps": self.step_count, **{name: getattr(self, name) for name in names}}

    def from_left(self) -> MaskedDiffusion | None:
        if self.order == "left_to_right":
            return None
        rule = "low_confidence" if self.remasking == "origin" else self.remasking
        order = {"steps": self.response_length, "schedule": "static", "remasking": rule, "order": "left_to_right"}
        block = self.response_length if self.response_length % self.block_length else self.block_length
        return type(self)(**{**self.arguments, **order, "alg_temp": 0.0, "block_length": block})

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
        """The canvas is filled in the order and at the pace of `steps`, with the tokens of the response.

        At every step the model predicts as usual; the positions whose prediction would be committed take the
        response's token instead. A response that the model gave itself, greedily, so gives the very same steps.
        """
        return self._steps(model, input_ids, attention_mask, layers, None, responses, samples, looks, None)

    def block_at(self, step: int, prompt_length: int) -> tuple[int, range]:
        if self.block_length == self.response_length:
            return 1, range(self.response_length)
        if self.schedule == "dynamic":
            raise InputError("schedule='dynamic' has no share of the steps for each block; take one block or 'static'")
        share = self.step_count // -(-self.response_length // self.block_length)
        number = (step - 1) // share
        begin = number * self.block_length
        return number * share + 1, range(begin, min(begin + self.block_length, self.response_length))

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
        draws = Draws(row_generators(ids, mask, self.seed, samples), ids.device)
        quota = self._quota()
        given_up = idle = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        indices = [model.layer_index(layer) for layer in layers]
        canvas = Canvas(model, ids, mask, forced, indices, self.cfg_scale, self.end_token)
        canvas.ban(banned)
        off = canvas.before  # positions of the prompt in front of the response, where it holds masks
        self._require_no_draws(off)
        if responses is not None:
            responses = torch.cat([canvas.response[:, :off], responses], dim=1)
        since = (~canvas.masked).long() - 1  # the step at which a position was committed, -1 where it is not
        since[:, :off] = -1
        if looks and 0 in looks:
            canvas.look(torch.arange(len(ids), device=ids.device))
            before, known = torch.stack(canvas.prompt, dim=1).float(), ~canvas.masked[:, off:]
            sent = yield Step(0, canvas.answer, canvas.answer, before, known, before)
            if sent is not None:
                given_up = given_up | sent.to(given_up.device)
        for index in range(1, self.step_count + 1):
            self._begin(index, canvas, quota, draws, since)
            masked = canvas.masked & ~given_up.unsqueeze(1)
            open_places, count = quota.at(index, masked, off)
            # An unchanged canvas gives the same states; a finished one is only looked at where the official
            # sampler runs on to the last step.
            idle = count == 0 if self.schedule == "rounded" or self.repairs else ~masked.any(dim=1)
            due = canvas.stale & (~given_up if self.schedule in ("static", "dream") else ~idle)
            if index == 1 and not canvas.states:
                due = torch.ones_like(due)
            canvas.look(due.nonzero().squeeze(1))
            predicted, confidence = self._guess(canvas, masked, draws, index)
            if self.schedule == "dynamic":
                chosen = self._sure_enough(confidence, masked, off, last=index == self.step_count)
            elif self.remasking == "origin":
                chosen = open_places & (confidence < quota.share(index))
            else:
                chosen = most_confident(confidence, open_places, count)
            if responses is not None:
                predicted = torch.where(chosen, responses, predicted)
            canvas.commit(chosen, predicted)
            committed = ~canvas.masked
            committed[:, :off] = False
            since[committed & (since < 0)] = index
            phi = canvas.mean_states(self._pooled(committed, off))
            window = None
            if looks and looks.window and index in looks:
                window = canvas.mean_states(self._latest(since, looks.window, off))
            told = idle if self.schedule in ("rounded", "rnd1", "dynamic") or self.repairs else None
            prompt = canvas.tokens[:, : canvas.prompt_end].clone() if off else None
            sent = yield Step(index, canvas.answer, predicted[:, off:], phi, committed[:, off:], window, told, prompt)
            if sent is not None:
                given_up = given_up | sent.to(given_up.device)

    def _quota(self) -> Quota:
        return Quota(self.schedule, self.step_count, self.response_length, self.block_length, self.eps)

    def _begin(self, index: int, canvas: Canvas, quota: Quota, draws: Draws, since: torch.Tensor) -> None:
        """What comes before step `index`: nothing here. A sampler that takes tokens back does it in its own."""

    def _guess(
        self, canvas: Canvas, masked: torch.Tensor, draws: Draws, index: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The whole response as predicted, and the confidence at masked positions, both ``[batch, response]``."""
        predicted = canvas.response.clone()
        confidence = torch.zeros(masked.shape, device=masked.device)
        rows, places = masked.nonzero(as_tuple=True)
        size = positions_at_once(int(canvas.model.config.vocab_size), canvas.tokens.device)
        for row, place in zip(torch.split(rows, size), torch.split(places, size), strict=True) if len(rows) else ():
            predicted[row, place], confidence[row, place] = self._guess_at(canvas, row, place, draws)
        if self.order == "left_to_right":
            confidence = -torch.arange(masked.shape[1], device=masked.device).expand_as(masked).float()
        elif self.remasking in ("random", "origin") or self.alg_temp:
            drawn = draws.of(torch.arange(len(masked), device=masked.device), masked.shape[1])
            # The Gumbel trick: the largest sums are a draw without replacement from the softmax of the confidences.
            noise = -(-drawn.log()).log()
            tempered = self.alg_temp and self.remasking not in ("random", "origin")
            confidence = (confidence / self.alg_temp + noise if tempered else drawn).float()
        return predicted, confidence

    def _guess_at(
        self, canvas: Canvas, rows: torch.Tensor, places: torch.Tensor, draws: Draws
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Token and confidence at a few positions; their logits are gone afterwards."""
        logits = canvas.logits(rows, places)
        if self.suppress_eos:
            logits[:, [one for one in canvas.model.eos_token_ids if one < logits.shape[1]]] = -torch.inf
        uniforms = draws.of(rows, logits.shape[1]) if self.temperature > 0 else None
        logits = self._filtered(logits)
        rule = None if self.order == "left_to_right" else self.remasking
        return guess(logits, rule, self.temperature, uniforms, tempered=self.schedule == "dream")

    def _filtered(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits without the tokens that `top_p` and then `top_k` leave out, as Dream filters."""
        if self.top_p >= 1 and not self.top_k:
            return logits
        kept = keep_top_k(keep_top_p(logits / (self.temperature or 1), self.top_p), self.top_k)
        return logits.masked_fill(kept == -torch.inf, -torch.inf)

    def _sure_enough(self, confidence: torch.Tensor, masked: torch.Tensor, off: int, *, last: bool) -> torch.Tensor:
        """The positions a dynamic step commits, bool ``[batch, response]``."""
        if last:
            return masked
        first = (masked.int().argmax(dim=1, keepdim=True) - off).clamp(min=0) // self.block_length
        places = torch.arange(masked.shape[1], device=masked.device) - off
        open_places = masked & (places < (first + 1) * self.block_length)
        best = most_confident(confidence, open_places, torch.ones_like(first).squeeze(1))
        return best | (open_places & (confidence >= self.threshold))

    def _pooled(self, committed: torch.Tensor, off: int) -> torch.Tensor:
        """The positions phi averages, bool ``[batch, response]``; the first `off` are the prompt's."""
        everything = torch.ones_like(committed)
        everything[:, :off] = False
        if self.pooling == "released":
            return everything
        return torch.where(committed.any(dim=1, keepdim=True), committed, everything)

    def _latest(self, since: torch.Tensor, window: int, off: int) -> torch.Tensor:
        """The `window` positions committed last, of one step those furthest right, bool ``[batch, response]``.

        Where no more are pooled at all, all of those. since : the step of each, below 0 where nothing is committed.
        """
        return latest_of(self._pooled(since >= 0, off), since, window)

    def _require_no_draws(self, before: int) -> None:
        if before and (self.remasking in ("random", "origin") or self.alg_temp):
            raise InputError(
                "a prompt holds mask tokens, which are filled by confidence; they cannot be drawn (random, origin, "
                "alg_temp)"
            )

    def _require_consistent(self) -> None:
        if self.remasking == "origin" and self.schedule != "dream":
            raise InputError("remasking='origin' draws by Dream's time grid; give schedule='dream' with it")
        blocks, rest = divmod(self.response_length, self.block_length)
        if self.schedule == "rounded":
            blocks += rest > 0
        elif rest:
            raise InputError(
                f"response_length {self.response_length} is no multiple of block_length {self.block_length}; "
                f"give a block_length that divides it"
            )
        if self.schedule != "dynamic" and self.step_count % blocks:
            raise InputError(
                f"steps {self.step_count} cannot be shared evenly by {blocks} blocks of {self.block_length}; "
                f"give a multiple of {blocks}, or schedule='dynamic'"
            )
        if self.schedule != "static" and self.order == "left_to_right":
            raise InputError(
                f"order='left_to_right' commits evenly, which schedule={self.schedule!r} does not; "
                f"give schedule='static'"
            )
        if self.schedule == "dynamic" and self.remasking not in ("low_confidence", "margin"):
            raise InputError(
                f"schedule='dynamic' compares a probability with its threshold, which remasking={self.remasking!r} "
                f"does not give; take low_confidence or margin"
            )
