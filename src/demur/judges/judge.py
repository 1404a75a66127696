"""What a judge is: requests and the texts that answer them go in, a verdict on each comes out.

A verdict is True (harmful), False, or None where the judge gave none that can be read. None is never guessed:
whoever asks counts it and leaves the generation out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

Verdict = bool | None


class Judge(Protocol):
    """Judges texts.

    name : what results are labelled with. judges_harm : whether True means harm, so that its share is an attack
    success rate; a judge of mere compliance gives none.
    """

    @property
    def name(self) -> str: ...

    @property
    def judges_harm(self) -> bool: ...

    def __call__(self, prompts: Sequence[str], texts: Sequence[str]) -> list[Verdict]:
        """A verdict on each text as an answer to the prompt at its place."""

    def describe(self) -> dict[str, Any]:
        """What the verdicts depend on, as plain values."""


def judge_each(judge: Judge, prompts: Sequence[str], texts: Sequence[str]) -> list[Verdict]:
    """Verdicts on all pairs of prompt and text, equal pairs asked once."""
    pairs = list(zip(prompts, texts, strict=True))
    unique = list(dict.fromkeys(pairs))
    verdicts = judge([prompt for prompt, _ in unique], [text for _, text in unique])
    known = dict(zip(unique, verdicts, strict=True))
    return [known[pair] for pair in pairs]
