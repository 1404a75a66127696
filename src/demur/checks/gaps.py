"""Was a difference of tokens a near-tie? Asked of the network's logits in one clean pass.

In: a bench. Out: a function from a prompt and two generations to how far from a tie the choice was at their first
difference: for a token, the distance of logits as a share of the largest; for the order of a canvas, the distance of
confidences.
"""

from __future__ import annotations

import numpy as np
import torch

from demur.checks.bench import Bench
from demur.checks.clean import clean_pass, logit_gap
from demur.checks.traces import Gap, Trace
from demur.models import Model
from demur.samplers import BlockDiffusion, MaskedDiffusion
from demur.samplers.masked_diffusion.confidence import guess


def gap_of(bench: Bench) -> Gap:
    """The gap function of a family; with uniform diffusion, which draws every token, no difference is a tie."""
    if bench.model.traits.left_to_right:
        return lambda prompt, one, other, step: _token_gap(bench.model, prompt, one, other, step)
    if isinstance(bench.sampler, MaskedDiffusion | BlockDiffusion):
        sampler = bench.sampler
        return lambda prompt, one, other, step: _canvas_gap(bench.model, sampler, prompt, one, other, step)
    return lambda prompt, one, other, step: float("inf")


def _token_gap(model: Model, prompt: list[int], one: Trace, other: Trace, step: int) -> float:
    mine, theirs = one.answer, other.answer
    if step >= min(len(mine), len(theirs)) or mine[:step] != theirs[:step]:
        return float("inf")
    logits = clean_pass(model, [*prompt, *mine[:step]], [model.layer_count]).logits
    return logit_gap(logits[-1], (mine[step], theirs[step]))


def canvas_before(model: Model, trace: Trace, step: int) -> list[int]:
    """The response as the network sees it at a step (from 0): what was committed before, masks elsewhere."""
    mask = model.mask_token_id
    assert mask is not None
    if step == 0:
        return [mask] * trace.tokens.shape[1]
    return [int(token) for token in np.where(trace.committed[step - 1], trace.tokens[step - 1], mask)]


def response_logits(model: Model, logits: torch.Tensor) -> torch.Tensor:
    """The logits that predict the response's positions, from those of the response and the position before it."""
    return logits[:-1] if model.logits_shifted else logits[1:]


def _canvas_gap(
    model: Model, sampler: MaskedDiffusion | BlockDiffusion, prompt: list[int], one: Trace, other: Trace, step: int
) -> float:
    if sampler.remasking in ("random", "sequential") or sampler.order == "left_to_right" or sampler.temperature > 0:
        return float("inf")
    canvas = canvas_before(model, one, step)
    found = clean_pass(model, [*prompt, *canvas], [model.layer_count], kept=len(canvas) + 1)
    logits = response_logits(model, found.logits)
    both = one.committed[step] & other.committed[step]
    tokens = [(int(a), int(b)) for a, b in zip(one.tokens[step], other.tokens[step], strict=True)]
    unlike = [place for place in np.flatnonzero(both) if tokens[place][0] != tokens[place][1]]
    gap = max((logit_gap(logits[place], tokens[place]) for place in unlike), default=0.0)
    swapped = np.flatnonzero(one.committed[step] != other.committed[step])
    if len(swapped):
        rule = sampler.remasking if isinstance(sampler, MaskedDiffusion) else "low_confidence"
        _, sure = guess(logits[swapped], rule, 0.0, None, tempered=False)
        gap = max(gap, float(sure.max() - sure.min()))
    return gap
