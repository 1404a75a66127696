"""Which generations of a study form a group, and how each group is drawn, the same in every figure.

In: a `Study`. Out: boolean masks over its generations, and a colour, dash and marker a group. The colours follow
Okabe and Ito, the light ones darkened until a thin line shows on white.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from demur.report.parts.look import MUTED
from demur.studies.study.results import Study

HARMLESS, HARMFUL = "harmless", "harmful"
REFUSED, COMPLIED = "harmful, refused", "harmful, complied"
ALL_ATTACKS = "all attacks"
MOST_DRAWN = 24
"""Attacks that a figure shows: more are not told apart, and take time to draw. Tables hold all."""


RATE_COLUMNS = ["rate", "group", "threshold", "value", "low", "high", "count"]


class Style(NamedTuple):
    """How a group is drawn; `dash` is a matplotlib line style."""

    colour: str
    dash: Any
    marker: str


_FIXED = {
    HARMLESS: Style("#0072B2", "-", "o"),
    HARMFUL: Style("#D55E00", "-", "X"),
    REFUSED: Style("#D55E00", "-", "X"),
    COMPLIED: Style("#D55E00", (0, (4, 1.5)), "P"),
    "refused": Style("#D55E00", "-", "X"),
    "complied under attack": Style("#7B3294", "-", "^"),
}
_COLOURS = ("#009E73", "#C98500", "#3A9BD9", "#333333", "#C2628F", "#7F4F24")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
_MARKERS = ("s", "^", "D", "v", "P", "<", ">")


def attacks(study: Study) -> list[str]:
    """The names of the attacks, in the order in which they appear."""
    rows = study.generations
    return list(dict.fromkeys(rows.loc[rows["set"] == "test_attacks", "group"]))


def drawn(study: Study) -> list[str]:
    """The attacks that figures show, in the order in which they appear: all, or `MOST_DRAWN` of them.

    Those lie at even distances in the order of the guard's AUROC, the lowest and the highest among them.
    """
    names = attacks(study)
    if len(names) <= MOST_DRAWN:
        return names
    rows = study.detection
    guard = rows[(rows["detector"] == rows["detector"].iloc[0]) & (rows["subset"] == "all")] if len(rows) else rows
    areas = dict(zip(guard["group"], guard["auroc"], strict=True)) if len(guard) else {}
    order = sorted(names, key=lambda name: np.nan_to_num(areas.get(name, np.nan), nan=np.inf))
    places = np.linspace(0, len(order) - 1, MOST_DRAWN).round().astype(int)
    chosen = {order[place] for place in places}
    return [name for name in names if name in chosen]


def drawn_words(study: Study) -> str:
    """How many of the attacks figures show, for their keys; empty where they show all."""
    every, shown = len(attacks(study)), len(drawn(study))
    return "" if shown == every else f"{shown} of {every} attacks"


def name_of(group: object) -> str:
    """A group's name as printed: the harmful prompts that no attack was put on are the plain ones."""
    return "plain harmful" if group == HARMFUL else str(group)


def style_of(study: Study, name: str) -> Style:
    """How to draw a group or kind of the study; grey where it is neither an attack nor one of the fixed ones."""
    if name in _FIXED:
        return _FIXED[name]
    names = attacks(study)
    if name not in names:
        return Style(MUTED, "-", ".")
    i = names.index(name)
    return Style(_COLOURS[i % len(_COLOURS)], _DASHES[i % len(_DASHES)], _MARKERS[i % len(_MARKERS)])


def refusals(study: Study) -> np.ndarray:
    """Which generations the dictionary calls a refusal, bool ``[generations]``; a missing verdict is none."""
    return (study.generations["refused"] == True).to_numpy(dtype=bool)  # noqa: E712


def members(study: Study) -> dict[str, np.ndarray]:
    """The test generations of each group that is drawn, as masks ``[generations]``; plain harmful ones by verdict."""
    rows, refused = study.generations, refusals(study)
    plain = (rows["set"] == "test_harmful").to_numpy(dtype=bool)
    attacked = (rows["set"] == "test_attacks").to_numpy(dtype=bool)
    found = {
        HARMLESS: (rows["set"] == "test_harmless").to_numpy(dtype=bool),
        REFUSED: plain & refused,
        COMPLIED: plain & ~refused,
    }
    return found | {name: attacked & (rows["group"] == name).to_numpy(dtype=bool) for name in drawn(study)}
