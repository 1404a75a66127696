"""The report of a comparison: one figure and one HTML file.

In: a `Comparison`. Out: a figure of every rate under every run, and a page with the same numbers, their paired
differences and the answer lengths. Nothing is computed here.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from demur.files.writing import write_whole
from demur.report.compare.cells import difference_cell, value_cell
from demur.report.compare.differing import differing_context, home_of
from demur.report.parts.embed import embed
from demur.report.parts.groups import ALL_ATTACKS, HARMFUL, HARMLESS, name_of
from demur.report.parts.labels import broken, short
from demur.report.parts.linked import write_page
from demur.report.parts.look import RULE, STYLE, WIDTH, render, say_not_measured
from demur.report.parts.tables import Table
from demur.report.study.page import environment
from demur.studies.compare.compare import ALL_HARMFUL, TOKENS, Comparison

NAMES = {"RR": "refused (RR)", "IRR": "internal recovery (IRR)", "tokens": "tokens of an answer"}
LOOKS = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#7B3294", "D"), ("#333333", "v"))
DESCRIPTION = "Rates of each group under each run, a marker a run with its 95% interval."


def write_comparison(comparison: Comparison, folder: str | Path) -> Path:
    """Write ``comparison.html`` and the figure as PNG and SVG to `folder`; returns the page's path."""
    folder = Path(folder)
    figure = comparison_figure(comparison)
    for ending in ("png", "svg"):
        write_whole(folder / f"comparison.{ending}", render(figure, ending))
    context = {
        "runs": comparison.settings["runs"],
        "prompts": comparison.settings["prompts"],
        "resamples": comparison.settings["resamples"],
        "judge": comparison.settings["judge"],
        "tables": comparison_tables(comparison),
        "figure": embed(figure, "figure-comparison", DESCRIPTION),
        "short_figure": embed(comparison_figure(_refusals(comparison)), "figure-refusals", DESCRIPTION),
        **differing_context(comparison),
    }
    page = environment().get_template("compare/template.html").render(**context)
    path = folder / "comparison.html"
    write_page(path, page, [home_of(run) for run in comparison.settings["runs"] if run.get("path")])
    return path


@matplotlib.rc_context(STYLE)
def comparison_figure(comparison: Comparison) -> Figure:
    """Every rate by group, a marker a run with its 95% interval, joined where the runs differ; a panel a rate."""
    rows = _levels(comparison)
    rows = rows[~rows["measure"].isin(TOKENS)]
    panels = _panels(rows)
    groups = [max(_panel(rows, *panel)["group"].nunique(), 2) for panel in panels]
    height = 0.2 * len(comparison.runs) + 0.7 * max(len(panels), 1) + 0.34 * max(sum(groups), 2)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    if not panels:
        say_not_measured(figure.add_subplot())
        return figure
    every = figure.subplots(len(panels), 1, squeeze=False, height_ratios=groups)[:, 0]
    for axes, (measure, threshold) in zip(every, panels, strict=True):
        _dumbbells(axes, _panel(rows, measure, threshold), comparison.runs)
        axes.set_title(_title(measure, threshold))
    handles, words = every[0].get_legend_handles_labels()
    figure.legend(handles, [short(word, 48) for word in words], loc="outside upper left", ncols=1)
    return figure


def comparison_tables(comparison: Comparison) -> list[Table]:
    """A table a measure: each run's value, then each one's difference from the baseline."""
    rows, baseline = comparison.table, comparison.runs[0]
    apart = rows[rows["baseline"].notna()]
    tables = []
    for measure, threshold in _panels(_levels(comparison)):
        here, there = _panel(_levels(comparison), measure, threshold), _panel(apart, measure, threshold)
        others = [run for run in comparison.runs[1:] if (there["run"] == run).any()]
        columns = [("", run) for run in comparison.runs] + [(f"minus {baseline}", run) for run in others]
        body = [
            (
                name_of(group),
                [value_cell(_row(here, group, run)) for run in comparison.runs]
                + [difference_cell(_row(there, group, run)) for run in others],
            )
            for group in dict.fromkeys(here["group"])
        ]
        tables.append(Table(_title(measure, threshold), "group", columns, body))
    return tables


def _refusals(comparison: Comparison) -> Comparison:
    """Only how often each run refuses, over the groups that hold several where there are such."""
    rows = comparison.table[comparison.table["measure"] == "RR"]
    together = rows[rows["group"].isin((ALL_HARMFUL, ALL_ATTACKS, HARMFUL, HARMLESS))]
    return replace(comparison, table=together if len(set(together["group"])) > 1 else rows)


def _dumbbells(axes: Axes, rows: pd.DataFrame, runs: list[str]) -> None:
    groups = list(dict.fromkeys(rows["group"]))
    for height, group in enumerate(groups):
        values = rows.loc[rows["group"] == group, "value"]
        axes.plot([values.min(), values.max()], [height, height], color=RULE, linewidth=2.5, zorder=0)
    for place, run in enumerate(runs):
        part = rows[rows["run"] == run]
        colour, marker = LOOKS[place % len(LOOKS)]
        shift = 0.22 * (place - (len(runs) - 1) / 2)  # intervals side by side, not over one another
        heights = np.array([groups.index(group) for group in part["group"]]) + shift
        values = part[["value", "low", "high"]].to_numpy(dtype=float)
        whiskers = np.abs(values[:, 1:] - values[:, :1]).T
        axes.errorbar(
            values[:, 0], heights, xerr=whiskers, fmt=marker, color=colour, markersize=5, elinewidth=1, label=run
        )
    axes.set_yticks(range(len(groups)), [broken(name_of(group)) for group in groups])
    axes.set(xlim=(-0.02, 1.02), ylim=(len(groups) - 0.5, -0.5))
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")


def _levels(comparison: Comparison) -> pd.DataFrame:
    return comparison.table[comparison.table["baseline"].isna()]


def _panels(rows: pd.DataFrame) -> list[tuple[str, float]]:
    """Measures with their lambda_r, -1 where they have none, in order of appearance."""
    return list(dict.fromkeys(zip(rows["measure"], rows["threshold"].fillna(-1.0), strict=True)))


def _panel(rows: pd.DataFrame, measure: str, threshold: float) -> pd.DataFrame:
    return rows[(rows["measure"] == measure) & (rows["threshold"].fillna(-1.0) == threshold)]


def _title(measure: str, threshold: float) -> str:
    return NAMES.get(measure, measure) + (f", λr = {threshold:g}" if threshold >= 0 else "")


def _row(rows: pd.DataFrame, group: Any, run: str) -> Any:
    return next(rows[(rows["group"] == group) & (rows["run"] == run)].itertuples(), None)
