"""The canvas of a block diffusion model: prompt and response by slot, and what the passes so far saw of them.

In: a batch, how its blocks are counted, and the positions forced from the start. Out: logits of the current block and
the pooled states of the response. Attention is block-causal: a block sees itself and those before it. So the states of
a finished block stay valid, and a pass runs only what is new since the last one: the block that was just finished,
with its clean tokens, and the current one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from demur.errors import InputError
from demur.models import Model
from demur.models.formats.bidirectional import additive_mask
from demur.samplers.block_diffusion.cache import SlotCache
from demur.samplers.head import Head
from demur.samplers.masked_diffusion.canvas import checked_mask, without_banned
from demur.samplers.masked_diffusion.schedule import latest_of
from demur.samplers.rows import newest_states
from demur.samplers.step import FREE


@dataclass(frozen=True)
class Layout:
    """Where the rows of a batch lie on the canvas, int64 ``[batch]`` each, in slots.

    Blocks are the slots 0..b-1, b..2b-1 and so on. lead : the first slot of the prompt; those before it are padding
    that nothing sees. first : the first slot of the response. end : one behind its last. block : b. width : response
    positions of the widest row there can be, so that every batch of a recording has the same.
    """

    lead: torch.Tensor
    first: torch.Tensor
    end: torch.Tensor
    block: int
    width: int

    @property
    def slots(self) -> int:
        """Slots of the whole canvas."""
        return int(self.first.max()) + self.width


class BlockCanvas:
    """Prompts and responses of a block diffusion model, and the block that each row is at.

    input_ids, attention_mask : int64 ``[batch, prompt]``, padded on the left. forced : int64 ``[batch, width]``, a
    token or `FREE`. layers : whose states are read. shifted : the logits at place i - 1 of a block predict place i.
    reordered : attention is causal, and a pass reads the masks of the current block behind its committed tokens.
    """

    def __init__(
        self,
        model: Model,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        forced: torch.Tensor,
        layers: Sequence[int],
        layout: Layout,
        *,
        shifted: bool = False,
        reordered: bool = False,
    ) -> None:
        self.mask_id, self.model, self.layers = checked_mask(model), model, layers
        self.layout, self.shifted, self.reordered = layout, shifted, reordered
        batch, device = len(input_ids), input_ids.device
        self.tokens = torch.full((batch, layout.slots), self.mask_id, dtype=torch.int64, device=device)
        for row, (ids, real) in enumerate(zip(input_ids, attention_mask, strict=True)):
            self.tokens[row, int(layout.lead[row]) : int(layout.first[row])] = ids[real.bool()]
        self.places = layout.first.unsqueeze(1) + torch.arange(layout.width, device=device)
        self.exists = self.places < layout.end.unsqueeze(1)
        self.forced = (forced != FREE) & self.exists
        self.tokens.scatter_(1, self.places, torch.where(self.forced, forced, self.mask_id))
        self.guess = self.response.clone()
        self.edited = torch.zeros_like(self.exists)  # by the latest step, and the tokens that stood there before it
        self.stood = self.guess
        self.cache = SlotCache(batch, layout.slots)
        self.head = Head(model.network.get_output_embeddings())
        self.valid = layout.lead.clone()  # slots before it are in the cache, clean
        self.start = layout.first // layout.block * layout.block
        self.origin = self.start.clone()
        self.states = self.sources = torch.empty(0)  # of the current block: [batch, block, layers, width], [.., width]
        self.sums = self.counts = torch.empty(0)  # of finished response positions, committed and all: [2, batch, ...]
        self.last = torch.empty(0)  # what the head reads at the last position of the latest pass, [batch, width]
        self.prompt = torch.empty(0)  # the last prompt token in the first pass, [batch, layers, width]
        self.whole = torch.empty(0)  # every response position in its latest pass, where `keeps_whole`
        self.seen = torch.zeros_like(self.exists)
        self.keeps_whole = False
        self.banned: torch.Tensor | None = None  # int64 [batch, width, n], tokens never predicted at their place
        self.looked = torch.zeros(
            batch, dtype=torch.bool, device=device
        )  # whether a pass has reached the current block

    @property
    def response(self) -> torch.Tensor:
        """The response as it stands, int64 ``[batch, width]``."""
        return self.tokens.gather(1, self.places)

    @property
    def committed(self) -> torch.Tensor:
        """Where a token stands, bool ``[batch, width]``."""
        return self.response != self.mask_id

    @property
    def block_slots(self) -> torch.Tensor:
        """The slots of each row's current block, int64 ``[batch, block]``."""
        return self.start.unsqueeze(1) + torch.arange(self.layout.block, device=self.start.device)

    @property
    def block_answers(self) -> torch.Tensor:
        """Which places of the current block belong to the response, bool ``[batch, block]``."""
        slots = self.block_slots
        return (slots >= self.layout.first.unsqueeze(1)) & (slots < self.layout.end.unsqueeze(1))

    @property
    def block_tokens(self) -> torch.Tensor:
        """The tokens of the current block, int64 ``[batch, block]``."""
        return self.tokens.gather(1, self.block_slots.clamp(max=self.tokens.shape[1] - 1))

    @property
    def block_masked(self) -> torch.Tensor:
        """Where nothing is committed in the current block, bool ``[batch, block]``."""
        return self.block_answers & (self.block_tokens == self.mask_id)

    def begin(self, number: int) -> None:
        """Move every row to its block `number`, counted from the one in which its response begins."""
        self.start = self.origin + number * self.layout.block
        self.looked = torch.zeros_like(self.looked)

    def write(self, chosen: torch.Tensor, tokens: torch.Tensor) -> None:
        """Write `tokens` at the `chosen` places of the current block, both ``[batch, block]``."""
        rows, places = chosen.nonzero(as_tuple=True)
        self.tokens[rows, self.start[rows] + places] = tokens[rows, places]

    def edit(self, chosen: torch.Tensor, tokens: torch.Tensor) -> None:
        """Replace committed tokens at the `chosen` places of the current block, both ``[batch, block]``."""
        self.stood = self.response
        self.write(chosen, tokens)
        self.edited = self.stood != self.response

    def note(self, where: torch.Tensor, tokens: torch.Tensor) -> None:
        """Keep `tokens` as the current guess at places of the current block, both ``[batch, block]``."""
        rows, places = where.nonzero(as_tuple=True)
        self.guess[rows, self.start[rows] + places - self.layout.first[rows]] = tokens[rows, places]

    @property
    def predicted(self) -> torch.Tensor:
        """The response before the latest edits, with the guess where nothing is committed, int64 ``[batch, width]``."""
        response = torch.where(self.edited, self.stood, self.response)
        return torch.where(response == self.mask_id, self.guess, response)

    def look(self, rows: torch.Tensor, *, prompt_only: bool = False) -> None:
        """Run the network over what is new of some rows, int64 ``[rows]``, up to the end of their current block.

        prompt_only : up to its beginning.
        """
        if not len(rows):
            return
        begin, end = self.valid[rows], torch.minimum(self.start[rows] + self.layout.block, self.layout.end[rows])
        if prompt_only:
            end = self.start[rows]
        slots = begin.unsqueeze(1) + torch.arange(int((end - begin).max()), device=begin.device)
        real = slots < end.unsqueeze(1)
        read = self._read(rows, slots) if self.reordered else slots
        states, last = self._pass(rows, slots, read, real, end)
        self._keep(rows, read, real, states, last)
        self.last[rows] = last[torch.arange(len(rows), device=rows.device), (end - begin) - 1]
        self.valid[rows] = torch.maximum(self.start[rows], begin)
        self.looked[rows] = not prompt_only

    def fold(self, rows: torch.Tensor) -> None:
        """Count the current block of `rows`, int64 ``[rows]``, as finished: its last pass saw it whole and clean."""
        answers = self.block_answers[rows]
        committed = answers & (self.block_tokens[rows] != self.mask_id)
        for which, counted in enumerate((committed, answers)):
            self.sums[which, rows] += (self.states[rows] * counted[:, :, None, None]).sum(dim=1)
            self.counts[which, rows] += counted.sum(dim=1)
        self.valid[rows] = torch.minimum(self.start[rows] + self.layout.block, self.layout.end[rows])

    def next_logits(self, rows: torch.Tensor) -> torch.Tensor:
        """Logits at the last position of the latest pass, float32 ``[rows, vocabulary]``, until the next call."""
        return self.head.logits(self.last[rows])

    def logits(self, rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Logits at places of the current block in the last pass, float32 ``[n, vocabulary]``, until the next call."""
        read = (places - 1).clamp(min=0) if self.shifted else places
        logits = self.head.logits(self.sources[rows, read])
        if self.banned is None:
            return logits
        answers = (self.start[rows] + places - self.layout.first[rows]).clamp(0, self.layout.width - 1)
        return without_banned(logits, self.banned[rows, answers])

    def mean_states(self, counted: torch.Tensor, which: int) -> torch.Tensor:
        """The mean state, float32 ``[batch, layers, width]``, over the finished blocks and places of the current one.

        counted : bool ``[batch, block]``. which : of the finished blocks, 0 the committed positions, 1 all.
        """
        weights = counted[:, :, None, None].to(self.states.dtype)
        total = self.sums[which] + (self.states * weights).sum(dim=1)
        count = self.counts[which] + counted.sum(dim=1)
        return total / count[:, None, None]

    def mean_latest(self, since: torch.Tensor, window: int, *, everything: bool) -> torch.Tensor:
        """The mean state of the `window` latest positions that a pass has seen, float32 ``[batch, layers, width]``.

        since : int64 ``[batch, width]``, the step at which each was committed, below 0 where it is not. everything :
        positions that are not committed count too; they do where none is.
        """
        known = self.seen & (since >= 0)
        pooled = torch.where(known.any(dim=1, keepdim=True) & (not everything), known, self.seen)
        weights = latest_of(pooled, since, window)[:, :, None, None].to(self.whole.dtype)
        return (self.whole * weights).sum(dim=1) / weights.sum(dim=1)

    def _read(self, rows: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """The slot whose token each query reads: in the current block the committed ones before the masks."""
        inside = self.block_slots < self.layout.end.unsqueeze(1)
        behind = torch.where(inside, (self.block_tokens == self.mask_id).long(), 2)[rows]
        order = behind.argsort(dim=1, stable=True)
        start = self.start[rows].unsqueeze(1)
        place = (slots - start).clamp(0, self.layout.block - 1)
        return torch.where(slots >= start, start + order.gather(1, place), slots)

    def _pass(
        self, rows: torch.Tensor, slots: torch.Tensor, read: torch.Tensor, real: torch.Tensor, end: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One pass: states float32 ``[rows, queries, layers, width]`` and what the head reads.

        slots, read : int64 ``[rows, queries]``, where a query stands in the cache, and whose token it is.
        """
        seen = int(end.max())
        lead = self.layout.lead[rows].unsqueeze(1)
        self.cache.aim(rows, torch.where(real, slots, self.layout.slots), seen)
        ids = self.tokens[rows].gather(1, read.clamp(max=self.layout.slots - 1))
        decoder = self.model.decoder
        with self.model.states(self.layers) as found:
            output = decoder(
                input_ids=ids,
                attention_mask=self._visible(slots, lead, end, seen, decoder.dtype),
                position_ids=(read - lead).clamp(min=0),
                past_key_values=self.cache,
                use_cache=True,
            )
        newest_states(self.model, found, ids)
        return torch.stack([state.float() for state in found], dim=2), output.last_hidden_state

    def _visible(
        self, slots: torch.Tensor, lead: torch.Tensor, end: torch.Tensor, seen: int, dtype: torch.dtype
    ) -> torch.Tensor:
        """The additive mask ``[rows, 1, queries, seen]``: a slot sees its own block and those before it.

        Where the canvas is reordered a slot sees itself and those before it.
        """
        block = 1 if self.reordered else self.layout.block
        keys = torch.arange(seen, device=slots.device)
        known = (keys >= lead) & (keys < end.unsqueeze(1))
        allowed = known.unsqueeze(1) & ((keys // block)[None, None, :] <= (slots // block).unsqueeze(2))
        return additive_mask(~allowed, dtype)

    def _keep(
        self, rows: torch.Tensor, slots: torch.Tensor, real: torch.Tensor, states: torch.Tensor, last: torch.Tensor
    ) -> None:
        """Sum up the clean states of blocks before the current one, and keep the current block's."""
        if not self.sums.numel():
            shape, block = states.shape[2:], self.layout.block
            self.sums = states.new_zeros((2, len(self.tokens), *shape))
            self.counts = states.new_zeros((2, len(self.tokens)))
            self.states = states.new_zeros((len(self.tokens), block, *shape))
            self.sources = last.new_zeros((len(self.tokens), block, last.shape[-1]))
            self.last = last.new_zeros((len(self.tokens), last.shape[-1]))
            self.prompt = states.new_zeros((len(self.tokens), *shape))
            self.whole = states.new_zeros((*self.exists.shape, *shape) if self.keeps_whole else 0)
        ids = self.tokens[rows].gather(1, slots.clamp(max=self.layout.slots - 1))
        start = self.start[rows].unsqueeze(1)
        answers = real & (slots < start) & (slots >= self.layout.first[rows].unsqueeze(1))
        for which, counted in enumerate((answers & (ids != self.mask_id), answers)):
            self.sums[which, rows] += (states * counted[:, :, None, None]).sum(dim=1)
            self.counts[which, rows] += counted.sum(dim=1)
        first = self.layout.first[rows].unsqueeze(1)
        row, query = (real & (slots == first - 1)).nonzero(as_tuple=True)
        self.prompt[rows[row]] = states[row, query]
        if self.keeps_whole:
            row, query = (real & (slots >= first)).nonzero(as_tuple=True)
            place = slots[row, query] - first[row, 0]
            self.whole[rows[row], place], self.seen[rows[row], place] = states[row, query], True
        row, query = (real & (slots >= start)).nonzero(as_tuple=True)
        place = slots[row, query] - start[row, 0]
        self.states[rows[row], place] = states[row, query]
        self.sources[rows[row], place] = last[row, query]


def require_slots(model: Model, layout: Layout) -> None:
    """Refuse a canvas that is longer than the positions the network was built for."""
    needed = int((layout.end - layout.lead).max())
    if model.context_length is not None and needed > model.context_length:
        raise InputError(
            f"{model.name}: prompt and response take {needed} positions with whole blocks of {layout.block}, more than "
            f"the model's context of {model.context_length}; shorten the prompt or the response"
        )
