"""Which token a place would take, and how sure of it the model is.

In: logits of a few places. Out: tokens and confidences. Sources: the `generate` of SDAR (JetAstra/SDAR) and of LLaDA-2
(inclusionAI).
"""

from __future__ import annotations

from typing import Literal

import torch

from demur.samplers.autoregressive import draw_tokens
from demur.samplers.filters import keep_top_k, keep_top_p
from demur.samplers.head import pieces

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
        best = [group.softmax(dim=-1).max(dim=-1) for group in pieces(logits)]
        return torch.cat([one.indices for one in best]), torch.cat([one.values for one in best])
    logits = logits / temperature
    filtered = keep_top_p(keep_top_k(logits, top_k), top_p)
    tokens = draw_tokens(filtered, 1.0, uniforms)
    read = (filtered if confidence == "filtered" else logits).softmax(dim=-1)
    return tokens, read.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
