"""Left-to-right decoding, one token a step.

In: a causal model and a left-padded batch. Out: a `Step` a token, with its pooled state. The state of a
token exists once the token is fed back, so T steps cost the prompt's pass and T more; the pooling of the
authors' released code reads the states that *predict* tokens instead and saves the last pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch

from demur.looks import Looks
from demur.models import Layer, Model
from demur.samplers.kv_feed import Feed
from demur.samplers.step import (
    FREE,
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


class Autoregressive(Sampler):
    """Autoregressive decoding: step t commits token t, and a committed token never changes.

    steps : T, the number of tokens generated. temperature : 0 decodes greedily.
    suppress_eos : end-of-sequence tokens are never chosen, so that every answer has T tokens.
    seed : of the draws at a temperature above 0; each row has its own stream, whatever its batch.
    pooling : "paper" averages the states of the tokens so far (arXiv 2602.02600, section 3.1), each taken
        when the token is fed back, constant after end-of-sequence. "released" averages what the authors'
        released code does: the states that predict the tokens, the last one repeated after end-of-sequence.
    """

    family = "autoregressive"
    revises = False

    def __init__(
        self,
        steps: int = 32,
        *,
        temperature: float = 0.0,
        suppress_eos: bool = False,
        seed: int = 0,
        pooling: Pooling = "paper",
    ) -> None:
        steps, seed = require_count("steps", steps), require_count("seed", seed, None)
        require_at_least("temperature", temperature, 0)
        require_switch("suppress_eos", suppress_eos)
        require_one_of("pooling", pooling, get_args(Pooling))
        self.step_count = self.response_length = steps
        self.temperature, self.suppress_eos, self.seed, self.pooling = temperature, suppress_eos, seed, pooling

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "steps": self.step_count,
            "temperature": self.temperature,
            "suppress_eos": self.suppress_eos,
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
        total, released = self.step_count, self.pooling == "released"
        forced = forced_tokens(prefill, len(ids), total, ids.device)
        generators = row_generators(ids, mask, self.seed, samples) if self.temperature > 0 else []
        eos = torch.tensor(model.eos_token_ids, dtype=torch.int64, device=ids.device)
        tokens = torch.full((len(ids), total), model.pad_token_id, dtype=torch.int64, device=ids.device)
        committed = torch.zeros_like(tokens, dtype=torch.bool)
        rows = torch.arange(len(ids), device=ids.device)  # the rows not yet finished
        ended = torch.zeros_like(rows, dtype=torch.bool)
        pooled = RunningMean(len(ids), (looks.window or 0) if looks else 0)
        feed = self._feed(model, ids, mask, [model.layer_index(layer) for layer in layers], total - released)
        logits = feed.prompt()
        if looks and 0 in looks:
            given_up = yield Step(0, tokens.clone(), tokens.clone(), feed.newest, committed.clone(), feed.newest)
            if given_up is not None and given_up.any():
                going = ~given_up.to(rows.device)
                rows, logits = rows[going], logits[going]
                feed.keep(going)
        for index in range(1, total + 1):
            if len(rows):
                if self.suppress_eos:
                    logits[:, eos[eos < logits.shape[1]]] = -torch.inf
                chosen = self._choose(logits, [generators[row] for row in rows.tolist()] if generators else [])
                wanted = forced[rows, index - 1]
                chosen = torch.where(wanted == FREE, chosen, wanted)
                tokens[rows, index - 1] = chosen
                committed[rows, index - 1] = True
                if released:
                    pooled.replace(rows, feed.newest)
                if not released or index < total:
                    logits = feed.token(chosen, with_logits=index < total)
                if not released:
                    pooled.add(rows, feed.newest)
                ended[rows] = torch.isin(chosen, eos)
            if released:
                pooled.add_latest()
            window = pooled.latest_mean() if pooled.window and looks and index in looks else None
            given_up = yield Step(index, tokens.clone(), tokens.clone(), pooled.mean(), committed.clone(), window)
            if given_up is not None:
                ended |= given_up.to(ended.device)
            if index < total and ended[rows].any():
                going = ~ended[rows]
                rows, logits = rows[going], logits[going]
                feed.keep(going)

    def _feed(self, model: Model, ids: torch.Tensor, mask: torch.Tensor, layers: Sequence[int], response: int) -> Feed:
        """Where states and logits come from."""
        return Feed(model, ids, mask, layers, response)

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
        """Token t of the response is committed at step t; what follows its first end-of-sequence is not read."""
        forced = whole_responses(responses, len(input_ids), self.response_length, model.device)
        return self.steps(model, input_ids, attention_mask, layers=layers, prefill=forced, samples=samples, looks=looks)

    def _choose(self, logits: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
        """The next token of each row, int64 ``[rows]``, from logits ``[rows, vocabulary]``."""
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        draws = torch.cat([torch.rand(1, generator=generator, dtype=torch.float64) for generator in generators])
        return draw_tokens(logits, self.temperature, draws.to(logits.device))


def draw_tokens(logits: torch.Tensor, temperature: float, draws: torch.Tensor) -> torch.Tensor:
    """Sample by inverting the cumulative distribution: one uniform draw a row.

    logits : ``[rows, vocabulary]``. draws : float ``[rows]`` in [0, 1). Returns int64 ``[rows]``.
    """
    cumulative = (logits.double() / temperature).softmax(dim=-1).cumsum(dim=-1)
    places = torch.searchsorted(cumulative, (draws * cumulative[:, -1]).unsqueeze(-1), right=True)
    return places.squeeze(-1).clamp(max=logits.shape[-1] - 1)


class RunningMean:
    """The mean of the states a row has seen so far, float32 ``[batch, layers, width]``.

    window : how many of the latest states are held for a mean of their own; 0 for none. Memory grows with it alone.
    """

    def __init__(self, batch: int, window: int = 0) -> None:
        self.batch, self.window = batch, window
        self.sums = self.latest = self.counts = self.held = torch.empty(0)

    def add(self, rows: torch.Tensor, states: torch.Tensor) -> None:
        """Count a new state ``[rows, layers, width]`` for some rows; the others keep their mean."""
        self._start(states)
        if self.window:
            self.held[rows, self.counts[rows, 0, 0].long() % self.window] = states
        self.sums[rows] += states
        self.counts[rows] += 1

    def replace(self, rows: torch.Tensor, states: torch.Tensor) -> None:
        """Set the latest state of some rows, which `add_latest` will count."""
        self._start(states)
        self.latest[rows] = states

    def add_latest(self) -> None:
        """Count every row's latest state once more."""
        self.add(torch.arange(self.batch, device=self.sums.device), self.latest)

    def mean(self) -> torch.Tensor:
        """Over all states; 0 for a row that has seen none."""
        return self.sums / self.counts.clamp(min=1)

    def latest_mean(self) -> torch.Tensor:
        """Over the latest `window` states, or all where there are no more: that is `mean` then."""
        within = self.held.sum(dim=1) / self.window
        return torch.where(self.counts > self.window, within, self.mean())

    def _start(self, states: torch.Tensor) -> None:
        if not self.sums.numel():
            self.sums = states.new_zeros((self.batch, *states.shape[1:]))
            self.latest = torch.zeros_like(self.sums)
            self.counts = states.new_zeros((self.batch, 1, 1))
            self.held = states.new_zeros((self.batch, self.window, *states.shape[1:]))
