"""What a network keeps of earlier blocks: keys and values by slot, a row's slots independent of its neighbours'.

In: the keys and values of one pass. Out: those of all slots up to the last one asked for. transformers' attention calls
`update`; which slots a pass fills and sees is set by the canvas before it.
"""

from __future__ import annotations

import torch


class SlotCache:
    """Keys and values ``[batch, heads, slots + 1, head size]`` a layer; the last slot takes what nobody reads.

    A slot is written anew by every pass that covers it, so a block may be run as often as it changes.
    """

    def __init__(self, batch: int, slots: int) -> None:
        self.batch, self.slots = batch, slots
        self._keys: dict[int, torch.Tensor] = {}
        self._values: dict[int, torch.Tensor] = {}
        self._rows = self._places = torch.empty(0, dtype=torch.int64)
        self._seen = 0

    def aim(self, rows: torch.Tensor, places: torch.Tensor, seen: int) -> None:
        """What the next pass fills: slots `places` ``[rows, queries]`` of `rows` ``[rows]``; it sees `seen` slots."""
        self._rows, self._places, self._seen = rows, places, seen

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the keys and values ``[rows, heads, queries, size]`` of a layer; those of all slots the pass sees."""
        found = []
        for store, new in ((self._keys, keys), (self._values, values)):
            if layer not in store:
                store[layer] = new.new_zeros((self.batch, new.shape[1], self.slots + 1, new.shape[3]))
            whole = store[layer]
            whole[self._rows.unsqueeze(1), :, self._places] = new.transpose(1, 2)
            part = whole[:, :, : self._seen]
            found.append(part if len(self._rows) == self.batch else part[self._rows])
        return found[0], found[1]

    def get_seq_length(self, layer: int = 0) -> int:
        """Slots that hold something; positions are always given beside the cache."""
        return self._seen
