"""The canvas of a masked diffusion model: prompt and response, and what the last forward pass saw of them.

In: a batch and the positions forced from the start. Out: logits at chosen response positions and the pooled
states of the response. Full attention leaves no state valid once a token changes, so there is no cache; a
row is run again only when its tokens changed, and logits exist only where they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from demur.errors import InputError
from demur.models import Model
from demur.samplers.head import Head
from demur.samplers.proof import full_pass, padding_is_neutral
from demur.samplers.rows import newest_states
from demur.samplers.step import FREE

SCALED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Config keys of networks that change the head's output: those are run whole."""


class Canvas:
    """Prompts and responses ``[batch, prompt + response]`` of a masked diffusion model.

    forced : int64 ``[batch, response]``, a token or `FREE`. layers : whose states are read.
    guidance : 0, or the scale by which logits move away from those of a canvas without its prompt.
    end_token : stands behind the response in every pass, None for nothing.

    Masks inside a prompt are filled like those of the response, as by official LLaDA. Where there are any, `masked` and
    everything of its shape begin `before` positions earlier, with the first of them.
    """

    def __init__(
        self,
        model: Model,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        forced: torch.Tensor,
        layers: Sequence[int],
        guidance: float = 0.0,
        end_token: int | None = None,
    ) -> None:
        self.mask_id = checked_mask(model)
        self.model, self.layers, self.guidance = model, layers, guidance
        response = torch.where(forced == FREE, self.mask_id, forced)
        behind = response.new_full((len(response), int(end_token is not None)), end_token or 0)
        self.tokens = torch.cat([input_ids, response, behind], dim=1)
        self.attention_mask = torch.cat([attention_mask, torch.ones_like(response), torch.ones_like(behind)], dim=1)
        asked = ((input_ids == self.mask_id) & (attention_mask == 1)).any(dim=0)
        self.before = int((asked.flip(0).long().cumsum(dim=0) < asked.sum()).sum()) + 1 if bool(asked.any()) else 0
        self.start, self.prompt_end = input_ids.shape[1] - self.before, input_ids.shape[1]
        self.end = self.prompt_end + response.shape[1]
        self.given = self.tokens != self.mask_id  # what guidance hides: prompt and forced tokens
        self.banned: torch.Tensor | None = None  # see `ban`
        self.stale = torch.ones(len(response), dtype=torch.bool, device=response.device)
        self.states: list[torch.Tensor] = []  # a layer: [batch, response, width]
        self.prompt: list[torch.Tensor] = []  # a layer: [batch, width], the last prompt token in the latest pass
        self.sources: list[torch.Tensor] = []  # what `logits` reads: [batch, response, width or vocabulary]
        self.head = _plain_head(model)

    @property
    def response(self) -> torch.Tensor:
        """The response as it stands, int64 ``[batch, response]``; with the prompt from its first mask on. A view."""
        return self.tokens[:, self.start : self.end]

    @property
    def answer(self) -> torch.Tensor:
        """The response alone as it stands, int64 ``[batch, response]``; a copy."""
        return self.tokens[:, self.prompt_end : self.end].clone()

    @property
    def masked(self) -> torch.Tensor:
        """Where nothing is committed, bool ``[batch, response]``."""
        return (self.response == self.mask_id) & (self.attention_mask[:, self.start : self.end] == 1)

    def commit(self, chosen: torch.Tensor, tokens: torch.Tensor) -> None:
        """Write `tokens` at the `chosen` positions, both ``[batch, response]``."""
        changed = chosen & (tokens != self.response)
        self.response[changed] = tokens[changed]
        self.stale |= changed.any(dim=1)

    def remask(self, chosen: torch.Tensor) -> None:
        """Take back the tokens at the `chosen` positions, bool ``[batch, response]``, and ban each from its place."""
        self.banned = torch.where(chosen, self.response, FREE).unsqueeze(2)
        self.response[chosen] = self.mask_id
        self.stale |= chosen.any(dim=1)

    def ban(self, banned: torch.Tensor | None) -> None:
        """Never predict these tokens at their positions, int64 ``[batch, response, n]`` with `FREE` for none."""
        if banned is not None:
            self.banned = torch.nn.functional.pad(banned.to(self.tokens.device), (0, 0, self.before, 0), value=FREE)

    def look(self, rows: torch.Tensor) -> None:
        """Run the network over the canvas of some rows, int64 ``[rows]``."""
        if not len(rows):
            return
        tokens, mask = self.tokens[rows], self.attention_mask[rows]
        if self.guidance:
            tokens = torch.cat([tokens, tokens.masked_fill(self.given[rows], self.mask_id)])
            mask = torch.cat([mask, mask])
        read, states = self._run(tokens, mask)
        seen = [state[: len(rows)] for state in states]  # guidance: the conditional rows
        self.prompt = self._merged(self.prompt, [state[:, self.before] for state in seen], rows)
        self.states = self._merged(self.states, [state[:, 1:] for state in seen], rows)
        self.sources = self._merged(self.sources, [*torch.split(read, len(rows))], rows)
        self.stale[rows] = False

    def logits(self, rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Logits at response positions of the last pass, float32 ``[n, vocabulary]``, guided if so asked.

        They are valid until the next call.
        """
        read = [source[rows, places] for source in self.sources]
        if not self.guidance:
            found = self.head.logits(read[0]) if self.head else read[0].float()
        else:
            told, plain = [(self.head.embeddings(one) if self.head else one).float() for one in read]
            found = plain + (self.guidance + 1) * (told - plain)
        if self.banned is not None:
            found = without_banned(found, self.banned[rows, places])
        return found

    def mean_states(self, counted: torch.Tensor) -> torch.Tensor:
        """The mean state over the `counted` response positions, float32 ``[batch, layers, width]``."""
        weights = counted.unsqueeze(-1).float()
        sums = [(state.float() * weights).sum(dim=1) for state in self.states]
        return torch.stack(sums, dim=1) / weights.sum(dim=1, keepdim=True)

    def _run(self, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """What `logits` reads at the response positions of every row, and the states a layer from one before them."""
        lengths = mask.sum(dim=1)
        if bool((lengths == lengths[0]).all()) or padding_is_neutral(self.model, tokens.shape[1]):
            return self._pass(tokens, mask)
        # Rows of one length at a time: nothing is known of this network's padding, or it is known to tell.
        parts = [(lengths == one).nonzero().squeeze(1) for one in sorted(set(lengths.tolist()))]
        found = [self._pass(tokens[part], mask[part]) for part in parts]
        order = torch.cat(parts).argsort()
        states = [torch.cat(same)[order] for same in zip(*(states for _, states in found), strict=True)]
        return torch.cat([read for read, _ in found])[order], states

    def _pass(self, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The same, of rows that stand in one batch."""
        left = tokens.shape[1] - int(mask.sum(dim=1).max())
        start, length = self.start - left, self.response.shape[1]
        target = self.model.decoder if self.head else self.model.network
        with self.model.states(self.layers) as states:
            output = full_pass(self.model, target, tokens[:, left:], mask[:, left:])
        newest_states(self.model, states, tokens[:, left:])
        found = output.last_hidden_state if self.head else getattr(output, "logits", None)
        read: torch.Tensor = output[0] if found is None else found
        first = start - 1 if self.model.logits_shifted else start
        return _cut(read, first, first + length), [_cut(state, start - 1, start + length) for state in states]

    def _merged(self, old: list[torch.Tensor], new: list[torch.Tensor], rows: torch.Tensor) -> list[torch.Tensor]:
        """The new values at `rows`, the old ones elsewhere."""
        if len(rows) == len(self.tokens):
            return new
        return [whole.index_copy(0, rows, part) for whole, part in zip(old, new, strict=True)]


def without_banned(logits: torch.Tensor, banned: torch.Tensor) -> torch.Tensor:
    """Logits float32 ``[n, vocabulary]`` without the tokens in `banned`, int64 ``[n, most]`` with `FREE` for none."""
    place, which = (banned != FREE).nonzero(as_tuple=True)
    logits[place, banned[place, which]] = -torch.inf
    return logits


def _cut(values: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """Positions `first` to `last` of ``[batch, positions, ...]``; before the first there is, that one again.

    So the first position of a text has its own logits where logits are shifted, as officially.
    """
    return torch.cat([values[:, :1].expand(-1, max(-first, 0), -1), values[:, max(first, 0) : last]], dim=1)


def checked_mask(model: Model) -> int:
    mask, vocabulary = model.mask_token_id, int(model.config.vocab_size)
    if mask is None:
        raise InputError(f"{model.name}: has no mask token, which masked diffusion needs; set mask_token_id")
    if not 0 <= mask < vocabulary:
        raise InputError(
            f"{model.name}: its mask token is {mask}, outside the vocabulary of {vocabulary}; set mask_token_id to the "
            "id of the token that stands for 'not committed'"
        )
    return mask


def _plain_head(model: Model) -> Head | None:
    """The language-model head where it alone turns final states into logits, else None."""
    if model.final_norm or any(getattr(model.config, name, None) for name in SCALED_LOGITS):
        return None
    return Head(model.network.get_output_embeddings())
