"""The rates of several groups as one.

In: rows of rates with their counts. Out: one `Rate`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from demur.dynamics import Rate, wilson

if TYPE_CHECKING:
    import pandas as pd


def pooled_rate(rows: pd.DataFrame) -> Rate:
    """The rates of several groups, rows with hits and count, as one rate with Wilson's interval.

    Tables of earlier versions hold no hits; there each row's are its share of its count.
    """
    known = rows[rows["count"] > 0]
    hits = known["hits"] if "hits" in known else (known["value"] * known["count"]).round()
    return wilson(int(hits.sum()), int(known["count"].sum()))
