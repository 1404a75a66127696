"""Which token a place would take, how sure of it the model is, and how many tokens a step commits.

In: logits of a few places, or the masks of a block. Out: tokens and confidences, or counts. Sources: the `generate` of
SDAR (JetAstra/SDAR), LLaDA-2 (inclusionAI) and A2D (ZHZisZZ/dllm).
"""

from __future__ import annotations

from typing import Literal

import torch

from demur.samplers.autoregressive import draw_tokens

Confidence = Literal["plain", "filtered"]


def guess_token(
    logits: torch.Tensor,
    temperature: float,
    top_k: int,
    top_p: float,
    confidence: Confidence,
    uniforms: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The token of each place, int64 ``[n]``, and its probability, float32 ``[n]``.

    logits : float32 ``[n, vocabulary]``. uniforms : float64 ``[n]`` in [0, 1), for a temperature above 0; else the most
    likely token is taken, and no filter applies. confidence : the probability before the filters, or after them.
    """
    if uniforms is None:
        probabilities = logits.softmax(dim=-1)
        tokens = probabilities.argmax(dim=-1)
        return tokens, probabilities.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    logits = logits / temperature
    filtered = keep_top_p(keep_top_k(logits, top_k), top_p)
    tokens = draw_tokens(filtered, 1.0, uniforms)
    read = (filtered if confidence == "filtered" else logits).softmax(dim=-1)
    return tokens, read.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def keep_top_k(logits: torch.Tensor, count: int) -> torch.Tensor:
    """The logits ``[n, vocabulary]`` with all but the `count` largest at minus infinity; 0 keeps all."""
    if count <= 0:
        return logits
    least = logits.topk(min(count, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def keep_top_p(logits: torch.Tensor, share: float) -> torch.Tensor:
    """The logits ``[n, vocabulary]`` of the likeliest tokens that together first pass `share`; 1 keeps all."""
    if share >= 1:
        return logits
    ordered, order = logits.sort(descending=True, dim=-1)
    before = ordered.softmax(dim=-1).cumsum(dim=-1) > share
    before = torch.cat([torch.zeros_like(before[..., :1]), before[..., :-1]], dim=-1)  # the one that passes it is kept
    return logits.masked_fill(torch.zeros_like(before).scatter(-1, order, before), -torch.inf)


def even_counts(total: int, steps: int) -> list[int]:
    """`total` tokens spread evenly over `steps`, the remainder over the first ones."""
    return [total // steps + (step < total % steps) for step in range(steps)]


def rounded_counts(total: int, steps: int) -> list[int]:
    """The counts of A2D's samplers: at each step ``round(left * (1 - s / t))`` of what is left, zeros left out.

    Rounds half to even, and takes s / t in float32 by way of 1 - s and 1 - t, as officially: halves hang on it.
    """
    counts, left = [], total
    for step in range(steps):
        s, t = (torch.tensor((steps - step - one) / steps, dtype=torch.float32) for one in (1, 0))
        share = 1 - float((1 - (1 - s)) / (1 - (1 - t)))
        count = min(int(torch.round(torch.tensor(left, dtype=torch.float64) * share)), left)
        counts.append(count)
        left -= count
    return [count for count in counts if count]
