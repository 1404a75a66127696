"""Which token a masked position would take, and how sure of it the model is.

In: logits of a few positions. Out: a token and a confidence for each. Rules compare positions within a row
only, so a confidence needs no common scale. Which positions are committed is the sampler's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

from demur.samplers.head import pieces

Remasking = Literal["low_confidence", "random", "entropy", "margin", "origin"]


def guess(
    logits: torch.Tensor, rule: Remasking | None, temperature: float, uniforms: torch.Tensor | None, *, tempered: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The token of each position, int64 ``[n]``, and its confidence, float32 ``[n]``.

    logits : float32 ``[n, vocabulary]``. rule : how confidence is measured; None leaves it at zero.
    uniforms : float64 ``[n, vocabulary]`` in [0, 1), for the Gumbel noise at a temperature above 0.
    tempered : confidence is that of the tempered distribution (Dream), not of the plain one (LLaDA).
    """
    if uniforms is None:
        tokens = logits.argmax(dim=-1)
    else:
        # In float64, as official LLaDA: float32 noise distorts the distribution.
        noise = uniforms.log_().neg_().log_().neg_()
        tokens = noise.mul_(temperature).add_(logits).argmax(dim=-1)
    if rule is None or rule in ("random", "origin"):
        return tokens, torch.zeros_like(tokens, dtype=torch.float32)
    if tempered and temperature > 0:
        logits = logits / temperature
    confidence, groups = CONFIDENCES[rule], pieces(logits)
    chosen = torch.split(tokens, [len(group) for group in groups])
    return tokens, torch.cat([confidence(*group) for group in zip(groups, chosen, strict=True)])


def _probability(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    # As officially: near 1, where the surest are chosen, exp(logit - logsumexp) rounds otherwise and reorders them.
    return logits.softmax(dim=-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def _negative_entropy(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    terms: torch.Tensor = torch.special.entr(logits.softmax(dim=-1))
    return -terms.sum(dim=-1)


def _margin(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    first, second = logits.softmax(dim=-1).topk(2, dim=-1).values.unbind(dim=-1)
    return first - second


CONFIDENCES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "low_confidence": _probability,
    "entropy": _negative_entropy,
    "margin": _margin,
}
