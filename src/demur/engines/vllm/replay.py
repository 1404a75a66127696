"""A generation that vLLM has made, replayed as steps of demur's own sampler, so that all that follows is the same.

In: tokens and the states of each. Out: steps, pooled by `Autoregressive` itself. No network is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from demur.models import Model
from demur.samplers import Autoregressive


class Replay(Autoregressive):
    """The sampler it was made from, but for its passes: their states are given.

    states : of each row ``[1 + tokens, layers, width]``, first that of the prompt's last token.
    """

    def __init__(self, sampler: Autoregressive, states: Sequence[np.ndarray]) -> None:
        super().__init__(sampler.step_count, suppress_eos=sampler.suppress_eos, pooling=sampler.pooling)
        self._states = [torch.from_numpy(one) for one in states]

    def _feed(self, model: Model, *_: Any) -> Any:
        return GivenStates(self._states)


class GivenStates:
    """Stands for `Feed`: the states of the newest tokens, row by row, and no logits."""

    def __init__(self, states: Sequence[torch.Tensor]) -> None:
        self._states, self._place = list(states), 0

    @property
    def newest(self) -> torch.Tensor:
        return torch.stack([one[self._place] for one in self._states])

    def prompt(self) -> torch.Tensor:
        return torch.zeros((len(self._states), 1))

    def token(self, tokens: torch.Tensor, *, with_logits: bool) -> torch.Tensor:
        self._place += 1
        return torch.zeros((len(tokens), 1))

    def keep(self, rows: torch.Tensor) -> None:
        self._states = [one for one, going in zip(self._states, rows.tolist(), strict=True) if going]
