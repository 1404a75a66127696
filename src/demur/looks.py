"""The looks of a generation: the steps at which states are kept and judged, on a grid that grows.

In: how many steps a generation has. Out: which of them are looks. A generation of any length so leaves states at a
few dozen looks; what is kept of each look is left to samplers and recordings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.errors import InputError

EVERY = 64
"""The looks are this far apart once the grid has stopped growing."""
WINDOW = 64
"""How many of the latest tokens the second mean is over."""


def look_steps(steps: int, *, prompt: bool = True) -> tuple[int, ...]:
    """The looks of a generation of `steps` steps: 0, 1, 2, 4, 8, 16, 32, 64, then every 64th, and the last.

    Look 0 is the state of the last prompt token, before anything is generated. prompt : whether it is among them.
    """
    doubling = [2**power for power in range(EVERY.bit_length())]  # 1 to 64
    grid = {*doubling, *range(EVERY, steps + 1, EVERY), steps}
    return (*([0] if prompt else []), *sorted(step for step in grid if 1 <= step <= steps))


@dataclass(frozen=True)
class Looks:
    """The steps that are looks, ascending, and the window of the second mean.

    At each look there are two means of states: of all tokens so far, and of the latest `window` of them; without a
    window the first alone.
    """

    steps: tuple[int, ...]
    window: int | None = WINDOW

    def __post_init__(self) -> None:
        if not self.steps or self.steps[0] < 0 or any(a >= b for a, b in zip(self.steps, self.steps[1:], strict=False)):
            raise InputError(f"looks are at the steps {list(self.steps)}; expected ascending steps from 0 on")
        if self.window is not None and (type(self.window) is not int or self.window < 1):
            raise InputError(f"window is {self.window!r}; it must be a whole number of at least 1")

    @property
    def means(self) -> int:
        """How many means there are at a look."""
        return 1 if self.window is None else 2

    @classmethod
    def of(cls, steps: int, window: int | None = WINDOW, *, prompt: bool = True) -> Looks:
        """The looks of a generation of `steps` steps, see `look_steps`."""
        return cls(look_steps(steps, prompt=prompt), window)

    def __len__(self) -> int:
        return len(self.steps)

    def __contains__(self, step: int) -> bool:
        return step in self.steps

    def made(self, last: ArrayLike) -> NDArray[np.int64]:
        """How many looks an answer has whose last token came at step `last`: those up to the first at or after it."""
        return np.minimum(np.searchsorted(self.steps, np.asarray(last)) + 1, len(self.steps))
