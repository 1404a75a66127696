"""Several defenses as one: what any of them blocks is blocked.

In: defenses. Out: a defense. All of them run on every generation, so their times add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from demur.defenses.defense import Blocking, Defense, require_pairs
from demur.errors import InputError
from demur.recording import Recording


class AnyOf:
    """Blocks what at least one of `defenses` blocks; unread where none blocks and not all could be read."""

    def __init__(self, *defenses: Defense) -> None:
        if not defenses:
            raise InputError("AnyOf of no defenses; give at least one")
        self.defenses = defenses

    @property
    def name(self) -> str:
        return " or ".join(defense.name for defense in self.defenses)

    def describe(self) -> dict[str, Any]:
        """What the verdicts depend on, as plain values."""
        return {"name": self.name, "any_of": [defense.describe() for defense in self.defenses]}

    def __call__(self, prompts: Sequence[str], texts: Sequence[str], recording: Recording | None = None) -> Blocking:
        require_pairs(self.name, prompts, texts)
        return self.joined([defense(prompts, texts, recording) for defense in self.defenses])

    @staticmethod
    def joined(found: Sequence[Blocking]) -> Blocking:
        """What several defenses made of the same generations, as one."""
        blocked = np.any([one.blocked for one in found], axis=0)
        unread = np.any([one.unread for one in found], axis=0) & ~blocked
        return Blocking(blocked, np.sum([one.seconds for one in found], axis=0), unread)
