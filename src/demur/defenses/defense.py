"""What a defense is: generations go in, which of them it blocks and what that cost come out.

In: prompts, the texts that answer them and, for defenses that look inside, the recording. Out: a `Blocking`. What a
block leads to is left to the studies, which count it as a refusal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from demur.errors import InputError
from demur.judges import Verdict
from demur.recording import Recording

Item = TypeVar("Item")


class Blocking(NamedTuple):
    """What a defense makes of generations, all ``[generations]``.

    blocked : bool, whether it is blocked. seconds : float64, wall time that the defense adds to the generation.
    unread : bool, whether the defense gave no verdict that can be read. Such a generation passes, and must be
        counted and left out rather than taken for harmless.
    """

    blocked: NDArray[np.bool_]
    seconds: NDArray[np.float64]
    unread: NDArray[np.bool_]


class Defense(Protocol):
    """Blocks generations; `name` is what results are labelled with."""

    @property
    def name(self) -> str: ...

    def __call__(self, prompts: Sequence[str], texts: Sequence[str], recording: Recording | None = None) -> Blocking:
        """Judge generations: user messages as the model got them, its texts, and their recording, in one order."""

    def describe(self) -> dict[str, Any]:
        """What the verdicts depend on, as plain values."""


def require_pairs(name: str, prompts: Sequence[str], texts: Sequence[str]) -> None:
    """Refuse prompts and texts that are not one to one."""
    if isinstance(prompts, str) or isinstance(texts, str) or len(prompts) != len(texts):
        raise InputError(
            f"{name}: found {len(prompts)} prompts and {len(texts)} texts; give a list of each, of one length and order"
        )


def judged_in_batches(
    judge: Callable[[Sequence[Item]], Sequence[Verdict]], items: Sequence[Item], batch_size: int
) -> Blocking:
    """Verdicts batch by batch; the time of a batch is shared evenly by its generations."""
    verdicts: list[Verdict] = []
    seconds = np.zeros(len(items))
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        began = time.perf_counter()
        verdicts += judge(batch)
        seconds[start : start + len(batch)] = (time.perf_counter() - began) / len(batch)
    blocked = np.array([verdict is True for verdict in verdicts], dtype=bool)
    return Blocking(blocked, seconds, np.array([verdict is None for verdict in verdicts], dtype=bool))
