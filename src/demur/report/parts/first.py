"""The first screen of a page about a study: one picture, and the three numbers that matter.

In: a `Study`. Out: a matplotlib `Figure` of the signal of each kind of generation, and `Cell`s. Nothing is measured
here, and the guard that is named is the one with the highest AUROC, which the words say.
"""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from demur.report.parts.groups import ALL_ATTACKS, HARMFUL, HARMLESS, attacks, members, refusals, style_of
from demur.report.parts.labels import NOT_MEASURED, Cell, area, percent, percent_of
from demur.report.parts.look import RULE, STYLE, WIDTH, say_not_measured
from demur.report.parts.trajectories import Y_LABEL, label_ends, signal_axes
from demur.studies.study.detectors import DIRECTION, SRI, STREAMING, STREAMING_DIRECTION, TRAJECTORY
from demur.studies.study.hardened import HARDENED, STREAMING_HARDENED
from demur.studies.study.rates import pooled_rate
from demur.studies.study.results import Study

GUARDS = (SRI, DIRECTION, TRAJECTORY, STREAMING, STREAMING_DIRECTION, HARDENED, STREAMING_HARDENED)
"""What may be called the best guard; the other detectors are there to be compared with."""
SINGLE = 25
"""Thin lines a kind: enough to see whether a mean hides two peaks."""


@matplotlib.rc_context(STYLE)
def kinds_figure(study: Study) -> Figure:
    """The mean signal of harmless, of refused harmful and of other harmful generations, over some single ones."""
    figure = Figure(figsize=(WIDTH, 2.75), layout="constrained")
    axes = figure.add_subplot()
    ends, words, colours = [], [], []
    for name, chosen in _kinds(study).items():
        signals, style = study.signals[chosen], style_of(study, name if name != "not refused" else "harmful, complied")
        if not len(signals):
            continue
        steps = np.arange(1, study.steps + 1)
        some = signals[np.unique(np.linspace(0, len(signals) - 1, SINGLE).astype(int))]
        axes.plot(steps, some.T, color=style.colour, linewidth=0.6, alpha=0.25, rasterized=study.steps > 200)
        mean = np.nanmean(signals, axis=0)
        axes.plot(steps, mean, color=style.colour, linestyle=style.dash, linewidth=2.4)
        ends.append(float(mean[-1]))
        words.append(f"{'harmful,' if name != HARMLESS else 'harmless'}\n{name if name != HARMLESS else ''}".strip())
        words[-1] += f"\nn = {len(signals)}"
        colours.append(style.colour)
    if ends:
        label_ends(axes, ends, words, colours)
    else:
        say_not_measured(axes)
    axes.axhline(0.5, color=RULE, linewidth=0.8)
    signal_axes(axes, study)
    axes.set(xlabel="step", ylabel=f"signal\n{Y_LABEL}")
    return figure


def three_numbers(study: Study) -> dict[str, Cell]:
    """How often the model refuses, what the best guard catches and at what price, and its AUROC."""
    name, row = _best(study)
    refused, whose = _refused(study)
    if row is None:
        return {whose: refused, "caught by a guard": Cell(NOT_MEASURED), "AUROC of a guard": Cell(NOT_MEASURED)}
    caught = percent(row.tpr, row.tpr_low, row.tpr_high, int(row.positives))
    price = next(study.false_positives.query("detector == @name").itertuples(), None)
    cost = Cell(NOT_MEASURED) if price is None else percent_of(price)
    flagged = f"it flags {cost.value} ({cost.interval}, {cost.cases}) of the harmless ones" if cost.cases else ""
    return {
        whose: refused,
        f"attack prompts caught by the {name}, here the guard of the highest AUROC": caught._replace(
            cases="; ".join(filter(None, [caught.cases, flagged]))
        )
        if caught.cases
        else caught,
        f"AUROC of the {name}, attack against harmless prompts": area(
            row.auroc, row.auroc_low, row.auroc_high, int(row.positives), int(row.negatives)
        ),
    }


def _kinds(study: Study) -> dict[str, np.ndarray]:
    """Masks ``[generations]``: harmless, harmful that the model refused, harmful that it did not."""
    harmful = study.generations["set"].isin(["test_harmful", "test_attacks"]).to_numpy(dtype=bool)
    said = refusals(study)
    return {HARMLESS: members(study)[HARMLESS], "refused": harmful & said, "not refused": harmful & ~said}


def _refused(study: Study) -> tuple[Cell, str]:
    groups = attacks(study) or [HARMFUL]
    rates = study.rates
    if not {"rate", "group"} <= set(rates.columns):
        return Cell(NOT_MEASURED), "refused by the model itself"
    chosen = rates[(rates["rate"] == "RR") & rates["group"].isin(groups)].dropna(subset=["value"])
    whose = "attack prompts" if attacks(study) else "plain harmful prompts"
    cell = percent_of(pooled_rate(chosen)) if len(chosen) else Cell(NOT_MEASURED)
    return cell, f"{whose} refused by the model itself"


def _best(study: Study) -> tuple[str, Any]:
    """The guard whose AUROC over all attacks is the highest, and its row; the paper's guard among equals."""
    rows = study.detection
    if not len(rows):
        return "", None
    chosen = rows[(rows["group"] == ALL_ATTACKS) & (rows["subset"] == "all") & rows["detector"].isin(GUARDS)]
    chosen = chosen.dropna(subset=["auroc"]).sort_values("auroc", ascending=False, kind="stable")
    row: Any = next(chosen.itertuples(), None)
    return ("", None) if row is None else (str(row.detector), row)
