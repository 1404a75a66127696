"""Comma-, semicolon- and tab-separated text as raw rows.

In: the text of a file. Out: pairs of a place and the row. Every row must have as many fields as the header: a field
that was lost or split would otherwise move every later one into its neighbour's column.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from demur.errors import InputError

DELIMITERS = (",", ";", "\t")
LONGEST_FIELD = 10_000_000
"""Characters; what is longer is the rest of the file behind a quote that was never closed."""


def delimited_rows(name: str, text: str, *, tabs: bool = False) -> Iterator[tuple[str, Any]]:
    """Pairs of a place ("row 3") and the row; empty fields are None, rows of empty fields are left out.

    name : what messages call the file. tabs : whether it is known to be separated by tabs.
    """
    first, _, rest = text.partition("\n")
    if first.strip().lower() in ("sep=;", "sep=,", "sep=\t"):  # a line that Excel writes and reads
        text = rest
    with _long_fields():
        reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if tabs else _delimiter(text), strict=True)
        records = iter(list(_records(name, reader)))
    header = next(records, None)
    if header is None:
        return
    names = [one.strip() for one in header[1]]
    _require_unlike(name, names)
    for number, (line, fields) in enumerate(records, start=1):
        if len(fields) != len(names):
            raise InputError(
                f"{name}, row {number} (line {line}): has {len(fields)} fields, the header {len(names)}; put a field "
                f"that holds a {'tab' if tabs else 'separator or line break'} between quotes"
            )
        yield f"row {number}", {column: field or None for column, field in zip(names, fields, strict=True) if column}


def _records(name: str, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Pairs of a line number and the fields of every row that holds anything."""
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield reader.line_num, fields
    except csv.Error as error:
        raise InputError(
            f"{name}, line {reader.line_num}: is not valid CSV ({error}); check that every quote is closed, and write "
            f"one inside a field twice"
        ) from error


def _delimiter(text: str) -> str:
    """The separator that splits the header into most fields; a comma where none splits it."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    return max(DELIMITERS, key=lambda one: len(next(csv.reader([header], delimiter=one))) if header else 0)


def _require_unlike(name: str, columns: list[str]) -> None:
    twice = next((one for place, one in enumerate(columns) if one and one in columns[:place]), None)
    if twice is not None:
        raise InputError(f"{name}: has two columns {twice!r}; rename one of them")


@contextmanager
def _long_fields() -> Iterator[None]:
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)
