"""Figures of the signal over the steps: of one generation, and of every group.

In: a `Study`. Out: matplotlib `Figure`s; nothing is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from demur.report.parts.groups import HARMFUL, HARMLESS, Style, drawn_words, members, name_of, style_of
from demur.report.parts.labels import broken, short
from demur.report.parts.look import INK, MUTED, RULE, STYLE, WIDTH, say_not_measured
from demur.studies.study.results import Study

Y_LABEL = "1 = complies, 0 = refuses"


@matplotlib.rc_context(STYLE)
def signal_figure(study: Study, place: int) -> Figure:
    """The signal of one generation against both references.

    place : row of `study.generations`.
    """
    row = study.generations.iloc[place]
    figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
    axes = figure.add_subplot()
    steps = _steps(study)
    _shade(axes, study)
    axes.step(steps, study.text_signals[place], where="post", color=MUTED, linewidth=1, linestyle=(0, (1, 1)))
    for line, name in zip(study.references, (HARMLESS, HARMFUL), strict=True):
        axes.plot(steps, line, color=style_of(study, name).colour, linewidth=1.6, linestyle=(0, (5, 1.5)))
    marker = "o" if study.steps <= 64 else ""
    axes.plot(steps, study.signals[place], color=INK, linewidth=2, marker=marker, markersize=3)
    ends = [study.signals[place][-1], *study.references[:, -1], study.text_signals[place][-1]]
    words = ["this signal", "harmless,\nanswered", "harmful,\nrefused", "text level"]
    colours = [INK, style_of(study, HARMLESS).colour, style_of(study, HARMFUL).colour, MUTED]
    label_ends(axes, ends, words, colours)
    signal_axes(axes, study)
    axes.set(xlabel="step", ylabel=f"signal\n{Y_LABEL}")
    axes.set_title(f"{short(row['id'], 24)} ({short(name_of(row['group']), 22)})")
    return figure


@matplotlib.rc_context(STYLE)
def bands_figure(study: Study) -> Figure:
    """Mean signal of each group with the band between its 10% and 90% quantiles; a panel a group."""
    groups = members(study)
    rows = -(-len(groups) // 2)
    figure = Figure(figsize=(WIDTH, 0.9 + 1.5 * rows), layout="constrained")
    # Axes that share limits pass each change on to all others: the time would grow with the square of the groups.
    panels = list(figure.subplots(rows, 2, squeeze=False).ravel())
    if len(groups) % 2:
        spare = panels.pop(1)  # the first row has room for the key
        spare.axis("off")
        spare.legend(handles=_band_key(study), loc="upper left", handlelength=1.5, borderaxespad=0)
    else:
        figure.legend(handles=_band_key(study), loc="outside upper left")
    for axes, (name, chosen) in zip(panels, groups.items(), strict=True):
        _band(axes, study, study.signals[chosen], style_of(study, name))
        axes.set_title(f"{broken(name, 21)}\nn = {chosen.sum()}", linespacing=1.1)
        axes.label_outer()
    for axes in panels[-2:]:
        axes.set_xlabel("step")
    figure.supylabel(f"signal: {Y_LABEL}", fontsize=10)
    return figure


def _shade(axes: Axes, study: Study) -> None:
    """Tint the compliant side above 0.5 and the refusal side below."""
    for low, high, name in ((0.5, 1.05, HARMLESS), (-0.05, 0.5, HARMFUL)):
        axes.axhspan(low, high, color=style_of(study, name).colour, alpha=0.07, linewidth=0)
    axes.axhline(0.5, color=RULE, linewidth=0.8)


def label_ends(axes: Axes, ends: Sequence[float], words: Sequence[str], colours: Sequence[str]) -> None:
    """Name every line at its right end, moved apart where lines end close together."""
    wanted = np.nan_to_num(np.asarray(ends, dtype=float), nan=0.5)
    order = np.argsort(wanted, kind="stable")
    half = [0.055 * (1 + words[i].count("\n")) for i in order]  # half the height of a label, in units of the y axis
    heights = wanted[order]
    heights[0] = max(heights[0], half[0] - 0.05)
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + half[i - 1] + half[i])
    heights[-1] = min(heights[-1], 1.07 - half[-1])
    for i in range(len(heights) - 2, -1, -1):
        heights[i] = min(heights[i], heights[i + 1] - half[i + 1] - half[i])
    place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "linespacing": 1.0}
    for height, i in zip(heights, order, strict=True):
        axes.text(1.03, height, words[i], color=colours[i], **place)


def _band(axes: Axes, study: Study, signals: np.ndarray, style: Style) -> None:
    for line, name in zip(study.references, (HARMLESS, HARMFUL), strict=True):
        axes.plot(_steps(study), line, color=style_of(study, name).colour, linewidth=0.8, linestyle=(0, (2, 1.5)))
    if len(signals):
        low, high = np.nanquantile(signals, [0.1, 0.9], axis=0)
        axes.fill_between(_steps(study), low, high, color=style.colour, alpha=0.22, linewidth=0)
        axes.plot(_steps(study), np.nanmean(signals, axis=0), color=style.colour, linewidth=2, linestyle=style.dash)
    else:
        say_not_measured(axes)
    signal_axes(axes, study)


def _band_key(study: Study) -> list[Patch | Line2D]:
    words = ("anchor prompts,\nharmless, answered", "anchor prompts,\nharmful, refused")
    references = [
        Line2D([], [], color=style_of(study, name).colour, linewidth=0.8, linestyle=(0, (2, 1.5)), label=word)
        for name, word in zip((HARMLESS, HARMFUL), words, strict=True)
    ]
    band = "\n".join(filter(None, ["group: mean,\n10–90% band", drawn_words(study)]))
    return [Patch(color=MUTED, alpha=0.3, label=band), *references]


def signal_axes(axes: Axes, study: Study) -> None:
    axes.set(xlim=(1, max(study.steps, 2)), ylim=(-0.05, 1.05), yticks=[0, 0.5, 1], yticklabels=["0", "0.5", "1"])
    quarters = np.round(np.linspace(0, study.steps, 5)).astype(int)
    axes.set_xticks(np.unique(np.maximum(quarters, 1)))


def _steps(study: Study) -> np.ndarray:
    return np.arange(1, study.steps + 1)
