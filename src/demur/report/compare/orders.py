"""The same weights under two orders of generation: tables, a figure and sentences for the story page.

In: a `Demo`. Out: what its page prints of the orders. Every number is taken from the comparisons.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from demur.report.compare.cells import difference_cell, value_cell
from demur.report.compare.page import comparison_figure
from demur.report.parts import sentences
from demur.report.parts.embed import embed
from demur.report.parts.groups import ALL_ATTACKS, HARMFUL, name_of
from demur.report.parts.tables import Table
from demur.studies.compare.compare import ALL_HARMFUL, Comparison
from demur.studies.demo.run import ORDERS, Demo

GROUPS = (ALL_HARMFUL, HARMFUL, ALL_ATTACKS)
REFUSAL = 0.5
"""The lambda_r of the IRR that is shown."""
CONDITIONS = {
    "allowed": "With end-of-sequence tokens",
    "suppressed": "With end-of-sequence tokens suppressed",
}
WHAT = {"RR": "refusals", "IRR": "internal recoveries"}


def orders_context(demo: Demo) -> dict[str, Any]:
    """What the page says of the orders: verdict, sentences, tables and figure."""
    apart = {end: {measure: find(pair, measure, apart=True) for measure in WHAT} for end, pair in demo.pairs.items()}
    tables = [_table(demo, "RR", "Refused (RR)"), _table(demo, "IRR", f"Turned inside (IRR, λr = {REFUSAL})")]
    figure = comparison_figure(_for_figure(demo))
    return {
        "verdict": sentences.verdict(apart["allowed"]["RR"], apart["suppressed"]["RR"]),
        "said": [
            sentences.difference(apart[end][measure], what, opening)
            for measure, what in WHAT.items()
            for end, opening in CONDITIONS.items()
        ],
        "headline": difference_cell(apart["allowed"]["RR"]),
        "lengths": _lengths(demo),
        "tables": tables,
        "length_table": _length_table(demo),
        "figure": embed(figure, "orders", "Refusal and internal recovery under each order."),
    }


def find(
    found: Comparison, measure: str, group: str = ALL_HARMFUL, *, run: str | None = None, apart: bool = False
) -> Any:
    """One row of a comparison's table, or None: a run's own value, or (`apart`) a difference."""
    rows = found.table
    chosen = (rows["measure"] == measure) & (rows["group"] == group) & (rows["baseline"].notna() == apart)
    chosen &= rows["threshold"].isna() | (rows["threshold"] == REFUSAL)
    if run is not None:
        chosen &= rows["run"] == run
    return next(rows[chosen].itertuples(), None)


def _table(demo: Demo, measure: str, caption: str) -> Table:
    """A row a group: the value under each order, then the paired differences."""
    columns = [("share under", name) for name in ORDERS]
    columns += [("diffusion minus left to right", name) for name in ("with end", "no end")]
    rows = []
    for group in GROUPS:
        cells = [value_cell(find(demo.comparison, measure, group, run=run)) for run in demo.comparison.runs]
        cells += [difference_cell(find(pair, measure, group, apart=True)) for pair in demo.pairs.values()]
        rows.append((name_of(group), cells))
    return Table(caption, "group", columns, rows)


def _lengths(demo: Demo) -> dict[str, str]:
    """A sentence for each order that may end its answers."""
    runs = list(zip(ORDERS, demo.comparison.runs, strict=True))[:2]
    kinds = ("tokens, refused", "tokens, complied")
    return {name: sentences.lengths(*(find(demo.comparison, kind, run=run) for kind in kinds)) for name, run in runs}


def _length_table(demo: Demo) -> Table:
    kinds = {"tokens, refused": "refused", "tokens, complied": "not refused"}
    rows = [
        (name, [value_cell(find(demo.comparison, kind, run=run)) for kind in kinds])
        for name, run in zip(ORDERS, demo.comparison.runs, strict=True)
    ]
    caption = "Mean tokens of an answer before its end, harmful prompts"
    return Table(caption, "order", [("", name) for name in kinds.values()], rows)


def _for_figure(demo: Demo) -> Comparison:
    """The comparison under the names of the orders, and only what the figure shows."""
    names = dict(zip(demo.comparison.runs, ORDERS, strict=True))
    table = demo.comparison.table
    shown = table["group"].isin(GROUPS) & (table["measure"].eq("RR") | table["threshold"].eq(REFUSAL))
    table = table[shown].assign(run=table["run"].map(names), baseline=table["baseline"].map(names))
    runs = [{**run, "label": names[run["label"]]} for run in demo.comparison.settings["runs"]]
    return replace(demo.comparison, table=table, settings={**demo.comparison.settings, "runs": runs})
