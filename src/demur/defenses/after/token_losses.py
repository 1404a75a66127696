"""How surprising a text is to a model, token by token.

In: a text and a model. Out: the loss of each of its tokens, in nats. An autoregressive model predicts a token from
those before it. A masked diffusion model predicts it from those around it; of several ways to a likelihood this is
the one without chance: every token is masked once, together with every `folds`-th other.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from demur.errors import InputError
from demur.models import Model

TOKENS_AT_ONCE = 2048
"""Tokens, padding included, that go through the network together."""
POSITIONS_AT_ONCE = 256
"""Positions whose logits are held in float32 at a time."""


def token_losses(model: Model, text: str, folds: int = 8) -> NDArray[np.float64]:
    """The negative log-likelihood of each token of `text` that the model can predict, ``[tokens]``.

    The text is taken bare, without the chat format. An autoregressive model cannot predict the first token unless
    its tokenizer puts a beginning-of-sequence before it.
    folds : masked diffusion only: canvases, and the distance between tokens that are masked together. With as many as
        tokens this is the pseudo-log-likelihood of Salazar et al. 2020 (arXiv 1910.14659).
    Raises `InputError` for a uniform diffusion model, and a text beyond the model's context.
    """
    return losses_of(model, [text], folds)[0]


def losses_of(model: Model, texts: Sequence[str], folds: int = 8) -> list[NDArray[np.float64]]:
    """`token_losses` of several texts, in batches of `TOKENS_AT_ONCE`; the same whatever else is in the batch."""
    rows = [_encoded(model, text) for text in texts]
    if model.traits.likelihood == "next token":
        found = _left_to_right(model, rows)
    else:
        found = [_masked(model, ids, folds) for ids in rows]
    return [losses.double().numpy(force=True) for losses in found]


def _encoded(model: Model, text: str) -> torch.Tensor:
    if model.traits.likelihood is None:
        raise InputError(
            f"{model.name}: models of the family {model.family} have no likelihood of a text; use another model"
        )
    if model.tokenizer is None:
        raise InputError(f"{model.name}: has no tokenizer files, so the perplexity of a text cannot be had")
    special = model.traits.likelihood == "next token"
    ids = torch.tensor(model.tokenizer(text, add_special_tokens=special)["input_ids"], device=model.device)
    if model.context_length is not None and len(ids) > model.context_length:
        raise InputError(f"a text of {len(ids)} tokens does not fit {model.name}'s context of {model.context_length}")
    return ids


@torch.no_grad()
def _left_to_right(model: Model, rows: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Losses of texts of any lengths, those of like length together.

    Padding stands on the right, behind every token that is read: what comes later changes nothing before it.
    """
    found = [torch.empty(0)] * len(rows)
    waiting = sorted((row for row, ids in enumerate(rows) if len(ids) > 1), key=lambda row: -len(rows[row]))
    while waiting:
        longest = len(rows[waiting[0]])
        size = max(1, TOKENS_AT_ONCE // longest)
        batch, waiting = waiting[:size], waiting[size:]
        ids = torch.full((len(batch), longest), model.pad_token_id, device=model.device)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(batch):
            ids[place, : len(rows[row])], mask[place, : len(rows[row])] = rows[row], 1
        for row, logits in zip(batch, _logits(model, ids, mask), strict=True):
            count = len(rows[row])
            found[row] = _losses(logits[: count - 1], rows[row][1:])
    return found


@torch.no_grad()
def _masked(model: Model, ids: torch.Tensor, folds: int) -> torch.Tensor:
    """Losses of one text; its canvases, each with other tokens masked, are of one length and need no padding."""
    if model.mask_token_id is None:
        raise InputError(f"{model.name}: has no mask token, which masked diffusion needs; set mask_token_id")
    losses = torch.full((len(ids),), torch.nan, device=ids.device)
    shift = int(model.logits_shifted)
    every = [torch.arange(fold, len(ids), folds, device=ids.device) for fold in range(min(folds, len(ids)))]
    size = max(1, TOKENS_AT_ONCE // max(1, len(ids)))
    for start in range(0, len(every), size):
        batch = every[start : start + size]
        canvases = torch.stack([ids.index_fill(0, places, model.mask_token_id) for places in batch])
        for places, logits in zip(batch, _logits(model, canvases, torch.ones_like(canvases)), strict=True):
            read = places[places >= shift]  # shifted logits predict no first token
            losses[read] = _losses(logits[read - shift], ids[read])
    return losses[shift:]


def _logits(model: Model, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Logits at every position, ``[texts, tokens, vocabulary]``."""
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    if "use_cache" in inspect.signature(model.network.forward).parameters:
        inputs["use_cache"] = False
    output: Any = model.network(**inputs)
    logits: torch.Tensor = output.logits if hasattr(output, "logits") else output[0]
    return logits


def _losses(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Cross entropy ``[n]`` of logits ``[n, vocabulary]`` in float32."""
    parts = zip(torch.split(logits, POSITIONS_AT_ONCE), torch.split(tokens, POSITIONS_AT_ONCE), strict=True)
    return torch.cat([torch.nn.functional.cross_entropy(one.float(), two, reduction="none") for one, two in parts])
