"""What the engine's process tells the server's about a request: the verdicts, as text.

vLLM carries a request's `stop_reason`, a text or a token, with every token from the scheduler to the server. What the
guards say travels in it, with whatever else stood there.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from demur.defenses import Verdict

_MARK = "demur "


@dataclass(frozen=True)
class Said:
    """What the guards have said of a request so far.

    verdicts : by guard. cleared : how many tokens have passed every look that sees them; None where no look is to come.
    stopped : whether the guards ended it, by_prompt : for the prompt alone. own : vLLM's own stop_reason.
    """

    verdicts: dict[str, Verdict]
    cleared: int | None
    stopped: bool
    own: int | str | None
    by_prompt: bool = False


def encode(said: Said) -> str:
    """`Said` as text."""
    verdicts = {name: [one.step, one.looks, _plain(one.score), one.stopped_at] for name, one in said.verdicts.items()}
    return _MARK + json.dumps([verdicts, said.cleared, said.stopped, said.own, said.by_prompt])


def decode(text: Any) -> Said | None:
    """The inverse of `encode`; None for a stop_reason that is none of demur's."""
    return _decoded(text) if isinstance(text, str) and text.startswith(_MARK) else None


@lru_cache(4096)
def _decoded(text: str) -> Said:
    """The same text comes with every token until the next look."""
    verdicts, cleared, stopped, own, by_prompt = json.loads(text.removeprefix(_MARK))
    made = {name: Verdict(step, looks, float(score), stop) for name, (step, looks, score, stop) in verdicts.items()}
    return Said(made, cleared, stopped, own, by_prompt)


def _plain(score: float) -> float | str:
    """JSON has no infinity."""
    return score if math.isfinite(score) else str(score)
