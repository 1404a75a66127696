"""How surprising a text is to a model, token by token.

In: a text and a model. Out: the loss of each of its tokens, in nats. An autoregressive model predicts a token from
those before it. A masked diffusion model predicts it from those around it; of several ways to a likelihood this is
the one without chance: every token is masked once, together with every `folds`-th other.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from demur.errors import InputError
from demur.models import Model

POSITIONS_AT_ONCE = 256
"""Positions whose logits are held in float32 at a time."""


def token_losses(model: Model, text: str, folds: int = 8) -> NDArray[np.float64]:
    """The negative log-likelihood of each token of `text` that the model can predict, ``[tokens]``.

    The text is taken bare, without the chat format. An autoregressive model cannot predict the first token unless
    its tokenizer puts a beginning-of-sequence before it.
    folds : masked diffusion only: forward passes, and the distance between tokens that are masked together. With as
        many as tokens this is the pseudo-log-likelihood of Salazar et al. 2020 (arXiv 1910.14659).
    Raises `InputError` for a uniform diffusion model, and a text beyond the model's context.
    """
    if model.family == "uniform-diffusion":
        raise InputError(f"{model.name}: a uniform diffusion model has no likelihood of a text; use another model")
    if model.tokenizer is None:
        raise InputError(f"{model.name}: has no tokenizer files, so the perplexity of a text cannot be had")
    autoregressive = model.family == "autoregressive"
    ids = torch.tensor(model.tokenizer(text, add_special_tokens=autoregressive)["input_ids"], device=model.device)
    if model.context_length is not None and len(ids) > model.context_length:
        raise InputError(f"a text of {len(ids)} tokens does not fit {model.name}'s context of {model.context_length}")
    losses = _left_to_right(model, ids) if autoregressive else _masked(model, ids, folds)
    return losses.double().numpy(force=True)


@torch.no_grad()
def _left_to_right(model: Model, ids: torch.Tensor) -> torch.Tensor:
    if len(ids) < 2:
        return torch.empty(0)
    return _losses(_logits(model, ids)[:-1], ids[1:])


@torch.no_grad()
def _masked(model: Model, ids: torch.Tensor, folds: int) -> torch.Tensor:
    if model.mask_token_id is None:
        raise InputError(f"{model.name}: has no mask token, which masked diffusion needs; set mask_token_id")
    losses = torch.full((len(ids),), torch.nan, device=ids.device)
    shift = int(model.logits_shifted)
    for fold in range(min(folds, len(ids))):
        places = torch.arange(fold, len(ids), folds, device=ids.device)
        canvas = ids.index_fill(0, places, model.mask_token_id)
        places = places[places >= shift]  # shifted logits predict no first token
        losses[places] = _losses(_logits(model, canvas)[places - shift], ids[places])
    return losses[shift:]


def _logits(model: Model, ids: torch.Tensor) -> torch.Tensor:
    """Logits at every position of one text, ``[tokens, vocabulary]``."""
    inputs: dict[str, Any] = {"input_ids": ids.unsqueeze(0), "attention_mask": torch.ones_like(ids).unsqueeze(0)}
    if "use_cache" in inspect.signature(model.network.forward).parameters:
        inputs["use_cache"] = False
    output: Any = model.network(**inputs)
    logits: torch.Tensor = output.logits if hasattr(output, "logits") else output[0]
    return logits[0]


def _losses(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Cross entropy ``[n]`` of logits ``[n, vocabulary]`` in float32."""
    parts = zip(torch.split(logits, POSITIONS_AT_ONCE), torch.split(tokens, POSITIONS_AT_ONCE), strict=True)
    return torch.cat([torch.nn.functional.cross_entropy(one.float(), two, reduction="none") for one, two in parts])
