"""Rows that are fed to a causal network together: the prompt, then token by token.

In: rows, and the way in which this network may be fed. Out: logits of the next token and the states of the newest.
Which way is right for a network is proven in `proof`; here it is only carried out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import RLock
from typing import Any

import torch

from demur.errors import InputError
from demur.models import Model
from demur.samplers.limits import moving_rope

LEAST_SHARED = 4
"""Tokens that the rows of a batch must share at least for a pass of its own to pay."""
CACHE_ARGUMENTS = ("past_key_values", "cache_params", "state")
"""Names under which networks take and give what they keep of earlier tokens."""
_ONE_AT_A_TIME = RLock()
"""For networks that change their own buffers in a pass, as moving rotary frequencies do."""


@dataclass(frozen=True)
class Way:
    """How a network may be fed.

    cache : the name of its cache, None where every token needs a pass over the whole text. bare : the decoder alone
    gives the states that the whole network gives, so passes without logits may leave out the head. padded : rows of
    different lengths may stand in one batch, padded on the left. shared : a beginning that all rows share may be run
    once, with padding behind it. selectable : finished rows can be dropped from the cache.
    """

    cache: str | None = None
    bare: bool = False
    padded: bool = False
    shared: bool = False
    selectable: bool = False


class Rows:
    """A batch of rows with one cache.

    input_ids, attention_mask : int64 ``[rows, prompt]``, padded on the left. newest : float32
    ``[rows, layers, width]``, the states at the last position of the latest pass. response : tokens that will be fed
    behind the prompt at most, for which a static cache makes room.
    """

    def __init__(
        self,
        model: Model,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        layers: Sequence[int],
        way: Way,
        response: int = 0,
    ) -> None:
        self.model, self.layers, self.way = model, layers, way
        self.room = input_ids.shape[1] + response
        self.ids, self.mask = input_ids, attention_mask
        self.text = input_ids  # all tokens so far, for a network without a cache
        self.cache: Any = None
        self.fed = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
        self.newest = torch.empty(0)

    def prompt(self) -> torch.Tensor:
        """Logits of the first token, ``[rows, vocabulary]``."""
        shared = shared_beginning(self.ids, self.mask) if self.way.shared and len(self.ids) > 1 else 0
        if shared >= LEAST_SHARED:
            self._run_once(shared)
        positions = (self.mask.cumsum(dim=1) - 1).clamp(min=0)[:, -self.ids.shape[1] :]
        return self._run(self.ids, positions, with_logits=True)

    def token(self, tokens: torch.Tensor, *, with_logits: bool) -> torch.Tensor:
        """Feed the newest token of each row ``[rows]``; logits of the next one, or nothing."""
        if not self.fed.all():  # rows that cannot be dropped from the cache are fed anything
            tokens = torch.zeros_like(self.fed, dtype=tokens.dtype).masked_scatter(self.fed, tokens)
        positions = self.mask.sum(dim=1, keepdim=True)
        self.mask = torch.cat([self.mask, torch.ones_like(positions)], dim=1)
        if self.way.cache is None:
            self.text = torch.cat([self.text, tokens.unsqueeze(1)], dim=1)
            every = (self.mask.cumsum(dim=1) - 1).clamp(min=0)
            logits = self._run(self.text, every, with_logits=with_logits)
        else:
            logits = self._run(tokens.unsqueeze(1), positions, with_logits=with_logits)
        if not self.fed.all():
            self.newest, logits = self.newest[self.fed], logits[self.fed] if with_logits else logits
        return logits

    def keep(self, rows: torch.Tensor) -> None:
        """Drop finished rows; rows is bool over those still fed."""
        self.newest = self.newest[rows]
        if self.way.cache is not None and not self.way.selectable:
            self.fed = self.fed.clone()
            self.fed[self.fed.clone()] = rows
            return
        self.mask, self.text, self.fed = self.mask[rows], self.text[rows], self.fed[rows]
        if self.cache is not None:
            self.cache.batch_select_indices(rows)

    def plain_states(self) -> torch.Tensor:
        """The states of the only layer at every position of the first row in one pass, float32 ``[prompt, width]``."""
        options = {"attention_mask": self.mask, "use_cache": False, "logits_to_keep": 1}
        with self._passes(), self.model.states(self.layers) as states:
            output = self.model.network(input_ids=self.ids, **accepted(self.model.network, options))
        newest_states(self.model, states, self.ids)
        logits_of(self.model, output)
        return states[0][0].float()

    def _run_once(self, shared: int) -> None:
        """Run what all rows begin with, and lay the rest of each row behind it, padded on the left."""
        rows = [ids[mask.bool()] for ids, mask in zip(self.ids, self.mask, strict=True)]
        begun = {"past_key_values": self._begun()} if chosen_cache(self.model) else {}
        options = accepted(self.model.decoder, {"use_cache": True, **begun})
        with self._passes():
            self.cache = self.model.decoder(input_ids=rows[0][:shared].unsqueeze(0), **options).past_key_values
        self.cache.batch_repeat_interleave(len(rows))
        self.ids, rest = self.ids[:, shared:].clone(), self.mask[:, shared:].clone()
        for place, row in enumerate(rows):
            width = len(row) - shared
            rest[place] = 0
            rest[place, -width:] = 1
            self.ids[place, -width:] = row[shared:]
        self.mask = torch.cat([torch.ones_like(self.mask[:, :shared]), rest], dim=1)

    def _run(self, ids: torch.Tensor, positions: torch.Tensor, *, with_logits: bool) -> torch.Tensor:
        whole = with_logits or not self.way.bare
        target = self.model.network if whole else self.model.decoder
        options: dict[str, Any] = {
            "attention_mask": self.mask,
            "position_ids": positions,
            "use_cache": self.way.cache is not None,
        }
        if whole:
            options["logits_to_keep"] = 1
        if self.way.cache is not None and (self.cache is not None or chosen_cache(self.model)):
            self.cache = self._begun() if self.cache is None else self.cache
            options[self.way.cache] = self.cache
        with self._passes(), self.model.states(self.layers) as states:
            output = target(input_ids=ids, **accepted(target, options))
        self.newest = newest_states(self.model, states, ids)
        if self.way.cache is not None:
            self.cache = getattr(output, self.way.cache)
        return logits_of(self.model, output)[:, -1] if with_logits else ids.new_empty(0)

    def _begun(self) -> Any:
        """An empty cache of the kind that was chosen when the model was loaded."""
        from transformers import DynamicCache, StaticCache

        config = self.model.network.config.get_text_config(decoder=True)
        if chosen_cache(self.model) == "static":
            return StaticCache(config=config, max_cache_len=self.room)
        return DynamicCache(config=config)

    def _passes(self) -> AbstractContextManager[Any]:
        return _ONE_AT_A_TIME if moving_rope(self.model.config) else nullcontext()


def chosen_cache(model: Model) -> str | None:
    """The kind of cache that was asked for when the model was loaded; None leaves it to the network."""
    found: str | None = model.execution.get("cache")
    return found


def newest_states(model: Model, states: Sequence[torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """The states at the last position, float32 ``[rows, layers, width]``; refuses any that are no states of `ids`."""
    expected = (*ids.shape, model.width)
    for state in states:
        if not isinstance(state, torch.Tensor) or tuple(state.shape) != expected:
            found = list(state.shape) if isinstance(state, torch.Tensor) else type(state).__name__
            raise InputError(
                f"{model.name}: a layer of {type(model.network).__name__} gives {found} for tokens {list(ids.shape)}; "
                f"expected {list(expected)} as the model's width is {model.width}. Its states cannot be recorded; "
                "choose other layers, if only some differ"
            )
    return torch.stack([state[:, -1].float() for state in states], dim=1)


def logits_of(model: Model, output: Any) -> torch.Tensor:
    """The logits in a network's output; `InputError` where it has no language-model head."""
    logits = getattr(output, "logits", None)
    if not isinstance(logits, torch.Tensor) or logits.ndim != 3:
        raise InputError(
            f"{model.name}: {type(model.network).__name__} gives no logits [batch, positions, vocabulary]; "
            "give a network with its language-model head"
        )
    return logits


def shared_beginning(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> int:
    """How many tokens all rows begin with, less one where that is the whole of the shortest row.

    A chat format's system prompt is such a beginning, and the template of many an attack.
    """
    lengths = attention_mask.sum(dim=1)
    shortest = int(lengths.min())
    starts = input_ids.shape[1] - lengths
    places = starts.unsqueeze(1) + torch.arange(shortest, device=input_ids.device)
    aligned = input_ids.gather(1, places)
    same = (aligned == aligned[:1]).all(dim=0).long()
    return min(int(same.cumprod(dim=0).sum()), shortest - 1)


def accepted(target: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options that a network's forward names among its parameters."""
    parameters = inspect.signature(getattr(target, "forward", target)).parameters
    return {name: value for name, value in options.items() if name in parameters}
