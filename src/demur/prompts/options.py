"""How the columns and labels of somebody else's table are to be read.

In: a mapping from demur's fields to the table's columns, and from its labels to the table's values. Out: rows under
demur's names. A column is never guessed from its content, only from its name, case and blanks around it aside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from demur.errors import InputError
from demur.prompts.prompt import FIELDS, INPUTS

LABELS = ("harmless", "harmful")


@dataclass(frozen=True)
class ReadOptions:
    """What the reader of a table is told.

    columns : demur's field to the table's column; None or "" reads the field as missing. labels : "harmless" and
    "harmful" to the value, or list of values, that stand for them. encoding : of text files.
    fields : the fields that are read.
    """

    columns: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, Any] = field(default_factory=dict)
    encoding: str = "utf-8"
    fields: tuple[str, ...] = FIELDS

    def __post_init__(self) -> None:
        for name in self.columns:
            if name not in self.fields:
                raise InputError(f"columns: {name!r} is no field; the fields are {', '.join(self.fields)}")
        for name in self.labels:
            if name not in LABELS:
                raise InputError(f"labels: {name!r} is no label; the labels are {' and '.join(LABELS)}")

    def renamed(self, where: str, row: Mapping[Any, Any]) -> dict[str, Any]:
        """The fields that a row holds, under demur's names.

        Raises `InputError` where a mapped column is missing or two columns could be the same field.
        """
        taken = {column for column in self.columns.values() if column}
        alike: dict[str, list[Any]] = {}
        for column in row:
            if column not in taken:
                alike.setdefault(_plain(column), []).append(column)
        places = {name: self._column(where, name, row, alike.get(name, [])) for name in self.fields}
        return {name: row[column] for name, column in places.items() if column is not None}

    def _column(self, where: str, name: str, row: Mapping[Any, Any], alike: Sequence[Any]) -> Any:
        if name in self.columns:
            wanted = self.columns[name]
            if wanted and wanted not in row:
                raise InputError(f"{where}: has no column {wanted!r} for {name!r}; {_found(row)}")
            return wanted or None
        if len(alike) > 1:
            raise InputError(
                f"{where}: the columns {' and '.join(map(repr, alike))} could both be {name!r}; say which: "
                f"--column {name}={alike[0]} (columns={{{name!r}: {alike[0]!r}}})"
            )
        return alike[0] if alike else None

    def require_input(self, where: str, row: Mapping[Any, Any], renamed: Mapping[str, Any]) -> None:
        """Raise `InputError` that lists the columns unless one of them can hold a prompt."""
        if not any(name in renamed for name in INPUTS):
            raise InputError(
                f"{where}: has no column 'prompt' (nor 'messages' or 'token_ids'); {_found(row)}. Say which one holds "
                f"the prompt: --column prompt=NAME (columns={{'prompt': NAME}})"
            )


def _plain(column: Any) -> str:
    return column.strip().casefold().lstrip("\ufeff") if isinstance(column, str) else ""


def _found(row: Mapping[Any, Any]) -> str:
    names = [repr(name)[:60] for name in row]
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return f"the columns found are {shown}" if names else "it has no columns"
