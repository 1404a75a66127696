"""Steps of a generation as rows that a template prints: runs of tokens that look alike, and a bar for the signal.

In: `WalkStep`s. Out: `Row`s of plain text; escaping is the template's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from demur.studies.demo.walk import Token, WalkStep

COMMITTED_END, GUESSED_END = "▪", "▫"


class Run(NamedTuple):
    """Neighbouring tokens of one look; `before` is the white space in front, which carries no mark."""

    look: str
    before: str
    text: str


@dataclass(frozen=True)
class Row:
    """One step; `width` is the signal in percent, `side` whether it is above one half."""

    index: int
    runs: list[Run]
    signal: str
    width: str
    side: str
    text_signal: str
    complies: bool | None


def rows_of(steps: Sequence[WalkStep]) -> list[Row]:
    """The rows of some steps."""
    return [
        Row(
            index=step.index,
            runs=runs_of(step.tokens),
            signal=f"{step.signal:.2f}",
            width=f"{100 * step.signal:.0f}",
            side="complies" if step.signal > 0.5 else "refuses",
            text_signal=f"{step.text_signal:.0f}",
            complies=step.complies,
        )
        for step in steps
    ]


def runs_of(tokens: Sequence[Token]) -> list[Run]:
    """Tokens joined where their look is the same; a mask whose guess is the end, and a committed end, are boxes."""
    runs = []
    for look, members in groupby(tokens, key=_look):
        text = "".join(_text(token) for token in members)
        bare = text.lstrip()
        runs.append(Run(look, text[: len(text) - len(bare)], bare))
    return runs


def _look(token: Token) -> str:
    parts = [token.kind, "end" if token.ends else "", "changed" if token.changed and token.kind != "committed" else ""]
    return " ".join(part for part in parts if part)


def _text(token: Token) -> str:
    if token.ends:
        return GUESSED_END if token.kind == "guess" else COMMITTED_END
    return token.text
