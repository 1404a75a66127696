"""A cascade of two defenses: the second is asked about what the first blocks, and both must agree.

In: a first defense, such as a guard, and a second, such as a guard model. Out: a defense. The second costs time on
what the first blocks alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from demur.defenses.defense import Blocking, Defense, require_pairs
from demur.recording import Recording


class Cascade:
    """Blocks what `first` blocks and `second` agrees on; where the second cannot be read, the first one's word stands.

    Its false positives are at most those of the first, and so is what it catches: the second takes back, and adds none.
    """

    def __init__(self, first: Defense, second: Defense) -> None:
        self.first, self.second = first, second

    @property
    def name(self) -> str:
        return f"{self.first.name}, then {self.second.name}"

    def describe(self) -> dict[str, Any]:
        """What the verdicts depend on, as plain values."""
        return {"name": self.name, "cascade": [self.first.describe(), self.second.describe()]}

    def __call__(self, prompts: Sequence[str], texts: Sequence[str], recording: Recording | None = None) -> Blocking:
        require_pairs(self.name, prompts, texts)
        first = self.first(prompts, texts, recording)
        flagged = np.flatnonzero(first.blocked).tolist()
        if not flagged:
            return first
        asked = self.second([prompts[row] for row in flagged], [texts[row] for row in flagged])
        second = _nothing(len(prompts))
        for whole, part in zip(second, asked, strict=True):
            whole[flagged] = part
        return self.joined(first, second)

    @staticmethod
    def joined(first: Blocking, second: Blocking) -> Blocking:
        """What both made of the same generations, as one; of the second only what the first blocks counts."""
        blocked = first.blocked & (second.blocked | second.unread)
        seconds = first.seconds + np.where(first.blocked, second.seconds, 0)
        return Blocking(blocked, seconds, first.unread | (first.blocked & second.unread))


def _nothing(count: int) -> Blocking:
    """A verdict of nothing blocked on so many generations."""
    return Blocking(np.zeros(count, dtype=np.bool_), np.zeros(count), np.zeros(count, dtype=np.bool_))
