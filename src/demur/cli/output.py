"""What a command prints: news while it runs, and at the end its numbers, as tables, JSON or CSV.

In: lines, and tidy tables. Out: stdout. Where numbers are asked for as JSON or CSV, stdout holds nothing else and news
goes to stderr. What is measured is not decided here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from demur.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

WIDTH = 120
"""Columns of a table where stdout is no terminal."""


@dataclass(frozen=True)
class Table:
    """A small table for people: a title, the names of the columns and the cells; the first `texts` columns are text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1


@dataclass(frozen=True)
class Output:
    """How a command talks: `quiet` leaves out news and tables, JSON and CSV take their place."""

    quiet: bool = False
    as_json: bool = False
    as_csv: bool = False

    def __post_init__(self) -> None:
        if self.as_json and self.as_csv:
            raise InputError("--json and --csv exclude each other; give one of them")

    def say(self, line: str) -> None:
        """A line of news, at once."""
        if not self.quiet:
            typer.echo(line, err=self.as_json or self.as_csv)
            sys.stdout.flush()

    def numbers(self, facts: Mapping[str, Any], found: pd.DataFrame, tables: Sequence[Table]) -> None:
        """The numbers of a command: `found` as CSV, with the `facts` as JSON, or as `tables`."""
        if self.as_csv:
            typer.echo(found.to_csv(index=False), nl=False)
        elif self.as_json:
            typer.echo(json.dumps({**facts, "numbers": _records(found)}, indent=2, ensure_ascii=False))
        elif not self.quiet:
            for table in tables:
                show(table)


def show(table: Table) -> None:
    """Print a table; one without rows is left out."""
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    if not table.rows:
        return
    drawn = Drawn(title=Text(table.title), title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, name in enumerate(table.columns):
        drawn.add_column(Text(name), justify="left" if place < table.texts else "right", overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(_plain(cell)) for cell in row))
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    with console.capture() as printed:
        console.print(drawn)
    typer.echo("\n".join(line.rstrip() for line in printed.get().splitlines()) + "\n")


def share(row: Any, name: str = "") -> str:
    """A share with its 95% interval, as "2.5% [0.9%, 7.1%]"; `name` of the columns where it is not value, low, high."""
    value, low, high = _three(row, name)
    return "not measured" if value != value else f"{value:.1%} [{low:.1%}, {high:.1%}]"


def area(row: Any, name: str) -> str:
    """An AUROC with its 95% interval."""
    value, low, high = _three(row, name)
    return "not measured" if value != value else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _three(row: Any, name: str) -> tuple[float, float, float]:
    columns = (name, f"{name}_low", f"{name}_high") if name else ("value", "low", "high")
    return tuple(float(row[column]) for column in columns)  # type: ignore[return-value]


def _plain(text: str) -> str:
    """The text with control characters spelled out: a terminal would obey them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _records(found: pd.DataFrame) -> Any:
    return json.loads(found.to_json(orient="records", double_precision=15))
