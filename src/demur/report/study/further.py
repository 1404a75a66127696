"""Tables of a study that its page has no place of their own for, such as a plugin's, and those that it lacks.

In: a `Study`. Out: `Table`s with their headings, and a sentence. Prompts and answers stay out unless asked for.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, NamedTuple

from demur.dynamics import FIELDS
from demur.report.parts.labels import Cell, percent, plain
from demur.report.parts.tables import Table
from demur.studies.study.hardened import FOLDER
from demur.studies.study.left_out import LEFT_OUT
from demur.studies.study.results import Study
from demur.studies.study.tables import STUDY_TABLES

if TYPE_CHECKING:
    import pandas as pd

PLACED = frozenset(
    {"rates", "detection", "false_positives", "controls", "correlations", "streaming", "projection", FOLDER, LEFT_OUT}
)
"""The tables that stand elsewhere on the page."""
TEXTS = ("prompt", "text", "goal")
MOST = 100
"""Rows that a page shows of one table."""


class Further(NamedTuple):
    """A table with its heading and what explains it; `needs` says what it takes, where it has no rows."""

    title: str
    note: str
    needs: str
    table: Table


def further_tables(study: Study, show_text: bool = False) -> list[Further]:
    """Every other table of the study, in the order of their places, those of plugins that are not loaded last."""
    known = {kind.name: kind for kind in STUDY_TABLES.in_order()}
    found = []
    for name in [*known, *(study.tables.keys() - known.keys())]:
        if name in study.tables and name not in PLACED:
            rows = study.tables[name] if show_text else study.tables[name].drop(columns=list(TEXTS), errors="ignore")
            kind = known.get(name)
            title, note, needs = (kind.title, kind.note, kind.needs) if kind else (name, "", "")
            found.append(Further(plain(title), plain(note), plain(needs or "rows"), frame_table(rows, name)))
    return found


def missing_words(study: Study) -> str:
    """Which tables the folder lacks and the command that makes them; empty where it has all."""
    if not study.missing:
        return ""
    names = ", ".join(study.missing)
    verb = "is" if len(study.missing) == 1 else "are"
    command = f"demur study {plain(study.settings.get('model'))} --prompts FOLDER --out {study.path}"
    return (
        f"Not in this study, which an earlier version made: {names}, and {verb} “not measured” below; `{command}`, "
        f"with the prompts as before, makes what is not there and generates nothing anew."
    )


def frame_table(rows: pd.DataFrame, name: str) -> Table:
    """A table as a page shows it: its first column names the rows, a share stands with its interval and count."""
    shares = set(FIELDS) <= set(rows.columns)
    others = [column for column in rows.columns[1:] if not shares or column not in FIELDS]
    body = [
        (plain(row[0]), [*(Cell(plain(one[column])) for column in others), *([_share(one)] if shares else [])])
        for row, one in zip(rows.head(MOST).itertuples(index=False, name=None), _records(rows), strict=False)
    ]
    words = f"{name}.parquet" if len(rows) <= MOST else f"the first {MOST} of {len(rows)} rows of {name}.parquet"
    heads = [("", plain(column).replace("_", " ")) for column in others] + ([("", "value")] if shares else [])
    return Table(words, plain(rows.columns[0]) if len(rows.columns) else "", heads, body)


def _records(rows: pd.DataFrame) -> list[dict[Hashable, Any]]:
    return rows.head(MOST).to_dict(orient="records")


def _share(row: dict[Hashable, Any]) -> Cell:
    return percent(row["value"], row["low"], row["high"], int(row["count"]))
