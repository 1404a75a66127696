"""False positives that were measured, by kind of harmless prompt, as a card shows them.

In: counts by kind, or a table that demur wrote. Out: rows with kind, hits, count and a 95% interval. Nothing is
measured here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from demur.errors import InputError
from demur.files.tables import read_table

if TYPE_CHECKING:
    import pandas as pd

Measured: TypeAlias = Union[Mapping[str, tuple[int, int]], "pd.DataFrame", str, os.PathLike[str]]
"""`(flagged, all)` by kind; or a table with kind (or group), hits and count, such as the `false_positives.parquet` of
`demur harden`; or its path."""


def measured_rows(measured: Measured | None, guard: str) -> list[dict[str, Any]]:
    """A row a kind: kind, hits, count, and the ends of Wilson's 95% interval, low and high.

    guard : the class whose rows are taken from a table of several detectors.
    Raises `InputError` for counts that cannot be, and for a table that lacks a column or holds other detectors only.
    """
    from scipy.stats import binomtest

    rows = []
    for kind, hits, count in _counts(measured, guard):
        if int(hits) != hits or int(count) != count or not 0 <= hits <= count or not count:
            raise InputError(
                f"measured: {kind} has {hits} flagged of {count}; expected whole numbers, one prompt or more"
            )
        ends = binomtest(int(hits), int(count)).proportion_ci(method="wilson")
        made = {"kind": str(kind), "hits": int(hits), "count": int(count)}
        rows.append({**made, "low": float(ends.low), "high": float(ends.high)})
    return rows


def _counts(measured: Measured | None, guard: str) -> Iterable[tuple[Any, Any, Any]]:
    if measured is None:
        return ()
    if isinstance(measured, Mapping):
        return [(kind, *pair) for kind, pair in measured.items()]
    table = read_table(Path(measured)).table if isinstance(measured, str | os.PathLike) else measured
    kind = "kind" if "kind" in table else "group"
    if missing := [name for name in (kind, "hits", "count") if name not in table]:
        raise InputError(f"measured: the table has no column {missing[0]!r}; expected kind, hits and count")
    return _own_rows(table, guard)[[kind, "hits", "count"]].itertuples(index=False, name=None)


def _own_rows(table: pd.DataFrame, guard: str) -> pd.DataFrame:
    """The rows of one detector: "ProbeGuard", or "StreamingGuard on the probe"."""
    if "detector" not in table or table["detector"].nunique() < 2:
        return table
    names = table["detector"].astype(str)
    own = names[(names == guard) | names.str.startswith(f"{guard} on ")]
    if len(own.unique()) != 1:
        raise InputError(
            f"measured: the table is of {', '.join(dict.fromkeys(names))}; give the rows of one, the {guard}"
        )
    return table.loc[own.index]
