"""`write_paper`: the protocol's tables and figures as one page.

In: a `Paper`. Out: one HTML file that loads nothing. Every value stands with its interval and count, and the paper's
own number behind it where it has one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from demur.guards import DirectionGuard, SRIGuard
from demur.report.parts.embed import embed
from demur.report.parts.figures import irr_figure, projection_figure, roc_figure
from demur.report.parts.groups import ALL_ATTACKS, HARMLESS, name_of
from demur.report.parts.labels import NOT_MEASURED, Cell, short
from demur.report.parts.linked import write_page
from demur.report.parts.look import INK, RULE, STYLE, WIDTH
from demur.report.parts.tables import Table
from demur.report.parts.trajectories import bands_figure
from demur.report.study.detectors import wrapped_flagged
from demur.report.study.page import environment, short_name
from demur.studies.paper import PAPER_TABLES, Paper
from demur.studies.paper.subject import Subject
from demur.studies.paper.tables.calibration import NOMINAL, SET_FOR
from demur.studies.paper.tables.defenses import STOPPED
from demur.studies.study.detectors import MAIN

DEFENSES = "table_13_defenses"
SHOWN = ("none", SRIGuard.__name__, DirectionGuard.__name__)
"""The defenses of the overview."""
FIGURES = {
    "Figures 5 and 6: internal recovery": (irr_figure, "Internal recovery rate of each group, with 95% intervals."),
    "Figure 12: the signals in two dimensions": (projection_figure, "Generations on two discriminant axes, by kind."),
    "Figure 13: the mean signal": (bands_figure, "Mean signal and 10 to 90% band over the steps, one panel a group."),
    "ROC of the SRI Guard": (roc_figure, "ROC curves of the guard's error for each attack against harmless prompts."),
}


READING = {
    "Figures 5 and 6: internal recovery": "How to read it: the longer the bar, the more generations of that group "
    "turned from compliance to refusal inside.",
    "Figure 12: the signals in two dimensions": "How to read it: each point is one generation; points that lie close "
    "together have signals of similar shape. The axes were fitted to part the kinds shown; it is no test.",
    "Figure 13: the mean signal": "How to read it: the line is the mean of a group, the band holds the middle 80% of "
    "its generations; the dotted lines are the anchor prompts’ means.",
    "ROC of the SRI Guard": "How to read it: closer to the top left is better; the grey diagonal is guessing.",
    "Calibration of the guards": "How to read it: on the grey line a limit flags as many harmless test prompts as it "
    "was set for; above it, more.",
}


def write_paper(paper: Paper, path: str | Path) -> Path:
    """Write the page to `path`, and return the path."""
    path = Path(path)
    page = (
        environment()
        .get_template("paper/template.html")
        .render(
            hero=_hero(paper),
            reading=READING,
            overview=overview_table(paper),
            tables=[(PAPER_TABLES[name], table) for name, table in paper_tables(paper).items()],
            defenses=_of_each_model(paper.tables[DEFENSES]),
            figures={
                short_name(one.name): _figures(one, paper.tables["calibration"], f"model-{place}")
                for place, one in enumerate(paper.subjects)
            },
            studies={short_name(one.name): str(one.study.path.relative_to(paper.path)) for one in paper.subjects},
        )
    )
    write_page(path, page)
    return path


def paper_tables(paper: Paper) -> dict[str, Table]:
    """Every table of the protocol by its name: groups down; under every model its measures across."""
    return {name: _table(rows, PAPER_TABLES[name].areas) for name, rows in paper.tables.items()}


def _hero(paper: Paper) -> dict[str, Any]:
    """The first screen: the defenses of the first model, drawn, and three of its numbers."""
    rows = paper.tables[DEFENSES]
    model = paper.subjects[0].name if paper.subjects else ""
    own = rows[rows["model"] == model]
    found = {(row.group, row.measure): row for row in own.itertuples()}
    asked = [(ALL_ATTACKS, "none"), (ALL_ATTACKS, DirectionGuard.__name__), (HARMLESS, DirectionGuard.__name__)]
    three = {
        f"{group}: refused or blocked, {'no defense' if name == 'none' else _label(name)}": _cell(
            found.get((name, STOPPED.format(group))), False
        )
        for group, name in asked
    }
    text = "Share of attack and of harmless prompts refused or blocked under each defense, with 95% intervals."
    words = (
        f"Defenses of {short_name(model)}. Triangles: attack prompts stopped, further right is better; circles: "
        "harmless ones, further left is better."
    )
    return {"figure": embed(defenses_figure(own), "first", text), "words": words, "three": three}


def overview_table(paper: Paper) -> Table:
    """A row a model: refused or blocked with and without the guards, and harmless flagged in attacks' wrappers."""
    found = {(row.model, row.group, row.measure): row for row in paper.tables[DEFENSES].itertuples()}
    columns = [(group, name) for group in (ALL_ATTACKS, HARMLESS) for name in SHOWN]
    rows = []
    for one in paper.subjects:
        cells = [_cell(found.get((one.name, name, STOPPED.format(group))), False) for group, name in columns]
        rows.append((short_name(one.name), [*cells, *(wrapped_flagged(one.study, name) for name in MAIN)]))
    heads = [(f"{group}: refused or blocked", _label(name)) for group, name in columns]
    heads += [("harmless in the attacks’ wrappers: flagged", name) for name in MAIN]
    return Table("share of generations, 95% interval and count", "model", heads, rows)


@matplotlib.rc_context(STYLE)
def defenses_figure(rows: pd.DataFrame) -> Figure:
    """What each defense of one model stops, of attacks and of harmless prompts, and the time that it adds."""
    names = list(dict.fromkeys(rows["group"]))
    took = rows[rows["measure"] == "overhead"].set_index("group")["value"]
    figure = Figure(figsize=(WIDTH, 0.9 + 0.42 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    for group, colour, marker, lift in ((ALL_ATTACKS, "#7B3294", "^", -0.12), (HARMLESS, "#0072B2", "o", 0.12)):
        part = rows[rows["measure"] == STOPPED.format(group)].set_index("group").reindex(names)
        values = part[["value", "low", "high"]].to_numpy(dtype=float)
        heights = np.arange(len(names)) + lift
        whiskers = np.abs(values[:, 1:] - values[:, :1]).T
        axes.errorbar(values[:, 0], heights, xerr=whiskers, fmt="none", ecolor=INK, elinewidth=0.8)
        label = f"{group}, n = {int(np.nan_to_num(part['count'].max()))}"
        axes.plot(values[:, 0], heights, color=colour, marker=marker, linestyle="", label=label)
    labels = [
        short(_label(name), 34) + (f"\n+{_digits(100 * took[name])}% time" if name != "none" else "") for name in names
    ]
    axes.set_yticks(range(len(names)), labels)
    axes.set(xlim=(-0.02, 1.02), xlabel="refused or blocked")
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    axes.grid(axis="x", linewidth=0.5, alpha=0.5)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0, labelsize=8.5)
    figure.legend(loc="outside upper left", ncols=2, handletextpad=0.2)
    return figure


@matplotlib.rc_context(STYLE)
def calibration_figure(rows: pd.DataFrame) -> Figure:
    """Harmless test prompts flagged at limits set on the calibration prompts for several rates, of either guard."""
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    axes = figure.add_subplot()
    top = 1.25 * max(NOMINAL)
    axes.plot([0, top], [0, top], color=RULE, linewidth=0.8)
    for place, (name, colour, marker) in enumerate(zip(MAIN, ("#D55E00", "#0072B2"), ("o", "s"), strict=True)):
        measures = [SET_FOR.format("flagged, harmless", nominal) for nominal in NOMINAL]
        found = rows[rows["group"] == name].set_index("measure").reindex(measures)
        values = found[["value", "low", "high"]].to_numpy(dtype=float)
        shifted = np.array(NOMINAL) + (place - 0.5) * 0.003
        whiskers = np.abs(values[:, 1:] - values[:, :1]).T
        axes.errorbar(shifted, values[:, 0], yerr=whiskers, fmt="none", ecolor=INK, elinewidth=0.8)
        axes.plot(shifted, values[:, 0], color=colour, marker=marker, linewidth=1.4, label=name)
    count = int(rows.loc[rows["measure"].str.startswith("flagged"), "count"].max())
    axes.set(xlabel="share the limit was set for", ylabel=f"harmless test prompts flagged (n = {count})")
    axes.set(xlim=(0, top), ylim=(0, None))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def _of_each_model(defenses: pd.DataFrame) -> dict[str, Markup]:
    """The figure of the defenses of every model, by its name."""
    text = "Share of attack and of harmless prompts refused or blocked under each defense, with 95% intervals."
    return {
        short_name(str(model)): embed(defenses_figure(rows), f"defenses-{place}", text)
        for place, (model, rows) in enumerate(defenses.groupby("model", sort=False))
    }


def _figures(subject: Subject, calibration: pd.DataFrame, name: str) -> dict[str, Markup]:
    """The paper's figures of a model, and how its guards are calibrated, by their title."""
    found = {
        title: embed(draw(subject.study), f"{name}-{place}", text)
        for place, (title, (draw, text)) in enumerate(FIGURES.items())
    }
    text = "False-positive rate of each guard on harmless test prompts against the rate its limit was set for."
    figure = calibration_figure(calibration[calibration["model"] == subject.name])
    return found | {"Calibration of the guards": embed(figure, f"{name}-calibration", text)}


def _table(rows: pd.DataFrame, areas: bool) -> Table:
    found: dict[tuple[str, str, str], Any] = {
        (str(row.model), str(row.measure), str(row.group)): row for row in rows.itertuples()
    }
    columns = list(dict.fromkeys((model, measure) for model, measure, _ in found))
    body = [
        (_label(group), [_cell(found.get((*column, group)), areas) for column in columns])
        for group in dict.fromkeys(group for _, _, group in found)
    ]
    heads = [(short_name(model), measure) for model, measure in columns]
    return Table("value, 95% interval and count", "group", heads, body)


def _digits(value: float) -> str:
    """Two digits that mean something, and never an exponent."""
    return f"{value:.0f}" if value >= 10 else np.format_float_positional(float(f"{value:.2g}"), trim="-")


def _label(group: str) -> str:
    """A group or a defense as printed; a guard's class name in words."""
    return re.sub(r"(?<=[A-Za-z])Guard", " Guard", name_of(group))


def _cell(row: Any, areas: bool) -> Cell:
    if row is None or not np.isfinite(row.value):
        return Cell(NOT_MEASURED)
    digits, unit, scale = ".1f", "%", 100.0
    if areas or row.measure.endswith("AUROC"):
        digits, unit, scale = ".3f", "", 1.0
    elif row.measure.endswith("points"):
        digits, unit, scale = "+.1f", " points", 1.0
    elif row.measure == "overhead":
        digits = ".3g"
    low, high = (format(scale * side, digits) for side in (row.low, row.high))
    between = " to " if digits.startswith("+") else "–"
    interval = f"{low}{between}{high}{unit}" if np.isfinite([row.low, row.high]).all() else "a ratio of sums"
    cases = f"n\u00a0=\u00a0{row.count}"
    if np.isfinite(row.published):
        cases += f"; paper {format(scale * row.published, digits)}{unit}"
    if row.note:
        cases += f"; {row.note}"
    value = f"{format(scale * row.value, digits)}{unit}"
    return Cell(value.replace("-", "−"), interval.replace("-", "−"), cases)
