"""How many masks a step commits, and the choice of the surest.

In: where the masks are, and how sure the model is of each. Out: the positions to commit. The dynamic
schedule counts nothing beforehand and is left to the sampler.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch

Schedule = Literal["static", "dynamic", "dream", "rounded", "rnd1"]
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

    def __init__(self, schedule: Schedule, steps: int, response: int, block: int, eps: float) -> None:
        self.schedule, self.block, self.response = schedule, block, response
        self.block_steps = steps // -(-response // block) if schedule != "dynamic" else steps
        self.grid = torch.linspace(1, eps, self.block_steps + 1)  # float32, as officially
        self.counts = torch.empty(0)  # of each step of the current block, [batch, block_steps]

    def at(self, index: int, masked: torch.Tensor, off: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """The masks up to the end of the current block, and how many of them to commit, int64 ``[batch]``.

        masked : bool ``[batch, off + response]``; the first `off` positions are the prompt's. Its masks may be chosen,
        and are not counted, as by official LLaDA.
        """
        number, step = divmod(index - 1, self.block_steps)
        start, end = number * self.block, min((number + 1) * self.block, self.response)
        open_places = masked.clone()
        open_places[:, off + end :] = False
        left = open_places.sum(dim=1)
        if self.schedule == "dynamic":
            return masked, masked.any(dim=1).long()
        if self.schedule == "dream":
            last = step == self.block_steps - 1
            return open_places, left if last else (left.float() * self.share(index)).long()
        if step == 0:
            totals = open_places[:, off + start : off + end].sum(dim=1)
            rows = [self._counts(int(total)) for total in totals.tolist()]
            self.counts = torch.tensor(rows, device=masked.device)
        return open_places, self.counts[:, step]

    def share(self, index: int) -> float:
        """The share of the masks left that is due at a step of Dream's time grid; 1 at the last of a block."""
        step = (index - 1) % self.block_steps
        return 1.0 if step == self.block_steps - 1 else float(1 - self.grid[step + 1] / self.grid[step])

    def _counts(self, total: int) -> list[int]:
        steps = self.block_steps
        if self.schedule == "rounded":
            counts = rounded_counts(total, steps)
            return counts + [0] * (steps - len(counts))
        if self.schedule == "rnd1":
            left = [int(torch.tensor(total) * ((steps - step) / steps)) for step in range(steps + 1)]
            return [before - after for before, after in pairwise(left)]
        return even_counts(total, steps)


def even_counts(total: int, steps: int) -> list[int]:
    """`total` tokens spread evenly over `steps`, the remainder over the first ones."""
    return [total // steps + (step < total % steps) for step in range(steps)]


def rounded_counts(total: int, steps: int) -> list[int]:
    """The counts of A2D's samplers: at each step ``round(left * (1 - s / t))`` of what is left, zeros left out.

    Rounds half to even, and takes s / t in float32 by way of 1 - s and 1 - t, as officially: halves hang on it.
    """
    counts, left = [], total
    for step in range(steps):
        s, t = (torch.tensor((steps - step - one) / steps, dtype=torch.float32) for one in (1, 0))
        share = 1 - float((1 - (1 - s)) / (1 - (1 - t)))
        count = min(int(torch.round(torch.tensor(left, dtype=torch.float64) * share)), left)
        counts.append(count)
        left -= count
    return [count for count in counts if count]
