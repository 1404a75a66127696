"""A batch of prompts fed to a causal network, so that no row's numbers depend on its neighbours.

In: a left-padded batch. Out: logits and states a token, in the batch's order. Where padding is proven to change nothing
the rows are one batch; elsewhere rows of one length are, each length with a cache of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from demur.errors import InputError
from demur.models import Model
from demur.samplers.limits import moving_rope
from demur.samplers.proof import way_for
from demur.samplers.rows import Rows


class Feed:
    """Runs the network over the prompts and then token by token.

    input_ids, attention_mask : int64 ``[batch, prompt]``, padded on the left. response : tokens that will be fed
    after the prompt at most. Raises `InputError` where the network cannot be followed.
    """

    def __init__(
        self,
        model: Model,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        layers: Sequence[int],
        response: int,
    ) -> None:
        lengths = attention_mask.sum(dim=1)
        _require_one_rope(model, lengths.tolist(), response)
        way = way_for(model, input_ids.shape[1] + response, len(lengths))
        groups = [torch.arange(len(lengths), device=lengths.device)]
        if not way.padded:
            groups = [(lengths == one).nonzero().squeeze(1) for one in sorted(set(lengths.tolist()))]
        self._places = groups  # of each part's rows, among those still fed
        self._parts = []
        for group in groups:
            start = input_ids.shape[1] - int(lengths[group].max())
            part = input_ids[group, start:], attention_mask[group, start:]
            self._parts.append(Rows(model, *part, layers, way, response))

    @property
    def newest(self) -> torch.Tensor:
        """The states at the last position of each row, float32 ``[rows, layers, width]``."""
        return self._ordered([part.newest for part in self._parts])

    def prompt(self) -> torch.Tensor:
        """Logits of the first token, ``[batch, vocabulary]``."""
        return self._ordered([part.prompt() for part in self._parts])

    def token(self, tokens: torch.Tensor, *, with_logits: bool) -> torch.Tensor:
        """Feed the newest token of each row ``[rows]``; logits of the next one, or nothing."""
        parts = zip(self._parts, self._places, strict=True)
        logits = [part.token(tokens[places], with_logits=with_logits) for part, places in parts]
        return self._ordered(logits) if with_logits else logits[0]

    def keep(self, rows: torch.Tensor) -> None:
        """Drop finished rows; rows is bool over those still fed."""
        moved = rows.long().cumsum(dim=0) - 1
        parts, places = [], []
        for part, group in zip(self._parts, self._places, strict=True):
            going = rows[group]
            if going.any():
                if not going.all():
                    part.keep(going)
                parts.append(part)
                places.append(moved[group[going]])
        self._parts, self._places = parts, places

    def _ordered(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        if len(parts) == 1:
            return parts[0]
        return torch.cat(list(parts))[torch.cat(self._places).argsort()]


def _require_one_rope(model: Model, lengths: Sequence[int], response: int) -> None:
    """Refuse rows in the midst of which the network would change the frequencies of its positions."""
    moving = moving_rope(model.config)
    if moving is None:
        return
    kind, original = moving
    for length in lengths:
        if original < length + response and (length <= original or kind == "dynamic"):
            raise InputError(
                f"{model.name}: a prompt of {length} tokens and a response of {response} pass {original} tokens, where "
                f"its {kind} rotary frequencies change and the states of earlier tokens with them; shorten the prompt"
                + (" or the response" if length <= original else "")
            )
