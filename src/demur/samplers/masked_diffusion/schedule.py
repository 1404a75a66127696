"""How many masks a step commits, and the choice of the surest.

In: where the masks are, and how sure the model is of each. Out: the positions to commit. The dynamic
schedule counts nothing beforehand and is left to the sampler.
"""

from __future__ import annotations

from typing import Literal

import torch

Schedule = Literal["static", "dynamic", "dream"]
DREAM_LAST_TIME = 1e-3
"""Where Dream's time grid ends, its official `eps`."""


def most_confident(confidence: torch.Tensor, places: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """The `count` surest of the `places` of each row, the left one first where two are equal.

    confidence, places : float and bool ``[batch, response]``. count : int64 ``[batch]``. Returns bool.
    """
    ordered = confidence.masked_fill(~places, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return places & (ordered.argsort(dim=1) < count.unsqueeze(1))


def latest_of(pooled: torch.Tensor, since: torch.Tensor, window: int) -> torch.Tensor:
    """The `window` of the `pooled` positions committed last, of one step those furthest right, bool like `pooled`.

    since : int64 ``[batch, response]``, the step at which each was committed, below 0 where nothing is.
    """
    order = since * since.shape[1] + torch.arange(since.shape[1], device=since.device)
    order = order.masked_fill(~pooled, torch.iinfo(order.dtype).min)
    ranks = order.argsort(dim=1, descending=True).argsort(dim=1)
    return pooled & (ranks < window)


class Quota:
    """How many tokens a step of a fixed schedule commits, and among which positions."""

    def __init__(self, schedule: Schedule, steps: int, response: int, block: int) -> None:
        self.schedule, self.block = schedule, block
        self.block_steps = steps // (response // block)
        self.grid = torch.linspace(1, DREAM_LAST_TIME, self.block_steps + 1)  # float32, as officially
        self.total = torch.empty(0)  # masks of the block when it was begun, [batch]

    def at(self, index: int, masked: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The masks up to the end of the current block, and how many of them to commit, int64 ``[batch]``."""
        number, step = divmod(index - 1, self.block_steps)
        end = (number + 1) * self.block
        open_places = masked.clone()
        open_places[:, end:] = False
        if self.schedule == "dream":
            left = open_places.sum(dim=1)
            if step == self.block_steps - 1:
                return open_places, left
            share = 1 - self.grid[step + 1] / self.grid[step]
            return open_places, (left.float() * share.to(left.device)).long()
        if step == 0:
            self.total = open_places[:, end - self.block : end].sum(dim=1)
        return open_places, self.total // self.block_steps + (step < self.total % self.block_steps).long()
