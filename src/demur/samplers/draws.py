"""Random numbers of a batch: a stream a row, so that no row's numbers depend on its neighbours.

In: a generator a row. Out: uniform numbers on the model's device.
"""

from __future__ import annotations

import torch


class Draws:
    """Uniform draws, a stream a row, made where the model is."""

    def __init__(self, generators: list[torch.Generator], device: torch.device) -> None:
        self.device = device
        place = device if device.type == "cuda" else torch.device("cpu")
        self.generators = [torch.Generator(place).manual_seed(one.initial_seed()) for one in generators]

    def of(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        """The next `count` numbers of each of `rows`, float64 ``[rows, count]`` in [0, 1).

        A call a row: drawn together, a row's numbers would depend on its neighbours.
        """
        streams = [self.generators[row] for row in rows.tolist()]
        drawn = [torch.rand(count, generator=one, dtype=torch.float64, device=one.device) for one in streams]
        return torch.stack(drawn).to(self.device)
