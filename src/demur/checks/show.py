"""A check as a table on a terminal or in a text file."""

from __future__ import annotations

from typing import TextIO

from demur.checks.result import Check

WIDTH = 118
"""Columns of the table where the output is no terminal."""
COLOURS = {"ok": "green", "failed": "bold red", "not run": "yellow", "stated": "none"}


def show(found: Check, file: TextIO) -> None:
    """Print the rows as a table, with the verdict under it."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=file, width=None if file.isatty() else WIDTH)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    for name, ratio in (("check", 12), ("what", 30), ("found", 30), ("tolerance", 22)):
        table.add_column(name, ratio=ratio, overflow="fold")
    table.add_column("", no_wrap=True)
    for row in found.rows:
        said = "; ".join(filter(None, [row.value, row.note]))
        cells = [Text(text) for text in (row.name, row.measured, said, row.tolerance)]
        table.add_row(*cells, Text(row.outcome, style=COLOURS[row.outcome]))
    console.print(table)
    console.print(Text(found.sentence))
