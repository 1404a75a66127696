"""`write_paper`: the protocol's tables as one page.

In: a `Paper`. Out: one HTML file that loads nothing. Every value stands with its interval and count, and the paper's
own number behind it where it has one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from demur.report.groups import name_of
from demur.report.html import environment
from demur.report.labels import NOT_MEASURED, Cell
from demur.report.tables import Table
from demur.studies.paper import TITLES, Paper

AREAS = ("table_4_ablation", "cross_dataset")


def write_paper(paper: Paper, path: str | Path) -> Path:
    """Write the page to `path`, and return the path."""
    path = Path(path)
    studies = {Path(subject.name).name: str(subject.study.path.relative_to(paper.path)) for subject in paper.subjects}
    page = environment().get_template("paper.html").render(tables=paper_tables(paper), studies=studies)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def paper_tables(paper: Paper) -> dict[str, Table]:
    """A table of the protocol each, by its title: groups down; under every model its measures across."""
    return {TITLES[name]: _table(TITLES[name], rows, name in AREAS) for name, rows in paper.tables.items()}


def _table(title: str, rows: pd.DataFrame, areas: bool) -> Table:
    found: dict[tuple[str, str, str], Any] = {
        (str(row.model), str(row.measure), str(row.group)): row for row in rows.itertuples()
    }
    columns = list(dict.fromkeys((model, measure) for model, measure, _ in found))
    body = [
        (name_of(group), [_cell(found.get((*column, group)), areas) for column in columns])
        for group in dict.fromkeys(group for _, _, group in found)
    ]
    return Table(
        f"{title}; value, 95% interval and count",
        "group",
        [(Path(model).name, measure) for model, measure in columns],
        body,
    )


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
    interval = f"{low}–{high}{unit}" if np.isfinite([row.low, row.high]).all() else "a ratio of sums"
    cases = f"n\u00a0=\u00a0{row.count}"
    if np.isfinite(row.published):
        cases += f"; paper {format(scale * row.published, digits)}{unit}"
    return Cell(f"{format(scale * row.value, digits)}{unit}", interval, cases)
