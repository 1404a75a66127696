"""One clean forward pass of the network, alone, without padding or cache: the truth that states are held against.

In: a model and token ids. Out: the states of chosen layers at every position, and logits.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from demur.errors import InputError
from demur.models import Model
from demur.models.formats.bidirectional import additive_mask


class Pass(NamedTuple):
    """states float32 ``[positions, layers, width]``; logits float32 ``[kept, vocabulary]``, of the last positions."""

    states: torch.Tensor
    logits: torch.Tensor


@torch.no_grad()
def clean_pass(
    model: Model,
    ids: Sequence[int],
    layers: Sequence[int],
    *,
    kept: int = 1,
    order: Sequence[int] | None = None,
    sight: np.ndarray | None = None,
) -> Pass:
    """Run the network over one row; states are transformers' own ``output_hidden_states``.

    kept : at how many of the last positions logits are given. order : which position of `ids` is read when, each with
    its own number; states and logits are given in the order of `ids`. sight : which position sees which, bool
    ``[ids, ids]``, where that is not the network's own choice.
    A network with its own final norm is read at that norm, because what its ``hidden_states`` end with is not known.
    Raises `InputError` where the network gives no hidden states of its blocks.
    """
    read = list(range(len(ids))) if order is None else list(order)
    row = torch.tensor([[ids[place] for place in read]], dtype=torch.int64, device=model.device)
    takes = inspect.signature(model.network.forward).parameters
    wanted: dict[str, Any] = {"use_cache": False, "logits_to_keep": kept if order is None else len(ids)}
    options = {name: value for name, value in wanted.items() if name in takes}
    inputs = {"input_ids": row, "attention_mask": torch.ones_like(row), **options}
    if sight is not None:
        unseen = torch.from_numpy(~sight).to(row.device).unsqueeze(0)
        inputs["attention_mask"] = additive_mask(unseen, model.dtype)
    if order is not None or sight is not None:
        inputs["position_ids"] = torch.tensor([read], device=model.device)
    if model.final_norm is not None:
        with model.states(layers) as seen:
            output = model.network(**inputs)
        states = [state[0].float() for state in seen]
    else:
        output, hidden = _with_hidden_states(model, inputs, blocks=list(layers) != [model.layer_count])
        states = [hidden[layer][0].float() for layer in layers]
    found_logits = getattr(output, "logits", None)
    logits = output[0] if found_logits is None else found_logits
    back = torch.tensor(read).argsort() if order is not None else slice(None)
    tail = logits[0, -len(ids) :][back][-kept:] if order is not None else logits[0, -kept:]
    return Pass(torch.stack(states, dim=1).cpu()[back], tail.float().cpu())


def logit_gap(logits: torch.Tensor, tokens: Sequence[int]) -> float:
    """How far the least of `tokens` is from the best, as a share of the largest |logit|; logits ``[vocabulary]``."""
    least = min(float(logits[token]) for token in tokens)
    return (float(logits.max()) - least) / max(float(logits.abs().max()), 1e-12)


def _with_hidden_states(model: Model, inputs: dict[str, Any], *, blocks: bool) -> tuple[Any, Sequence[torch.Tensor]]:
    """The network's output and its hidden states from the embeddings on, the last one behind the final norm.

    blocks : whether other layers than the last are wanted. Networks such as Mamba leave out the embeddings, begin with
    the first block and give the last block both before and after the norm.
    """
    with model.states([0, 1] if blocks else []) as seen:
        output = model.network(**inputs, output_hidden_states=True)
    hidden = output.hidden_states
    if hidden is None or len(hidden) != model.layer_count + 1:
        found = "no" if hidden is None else len(hidden)
        raise InputError(f"the network gives {found} hidden states for {model.layer_count} blocks")
    if blocks and model.layer_count > 1 and torch.equal(hidden[0], seen[1]) and not torch.equal(hidden[0], seen[0]):
        return output, [seen[0], *hidden[:-2], hidden[-1]]
    return output, hidden
