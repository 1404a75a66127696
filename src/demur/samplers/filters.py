"""Filters of logits: unlikely tokens at minus infinity.

In: logits. Out: the same without the tokens that are left out.
"""

from __future__ import annotations

import torch


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
