"""Refusal and internal recovery rates of every group, with their counts and intervals.

In: the generations of a study and their signals. Out: one tidy table. The attack success rate is not here:
it needs a judge of harm, and a refusal dictionary is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from demur.dynamics import FIELDS, Rate, internal_recovery_rates_by, rates_by, wilson

if TYPE_CHECKING:
    import pandas as pd


def rate_table(generations: pd.DataFrame, signals: np.ndarray, compliance: float = 0.5) -> pd.DataFrame:
    """RR, RR with the guard's flags counted as refusals, and IRR, for every group of the test sets.

    Columns rate, group, threshold (lambda_r, for IRR), value, low, high, count, hits.
    """
    import pandas as pd

    tested = generations["set"].str.startswith("test_").to_numpy(dtype=bool)
    members = generations[tested]
    members = members.assign(stopped=members["refused"] | members["flagged"])
    recovery = internal_recovery_rates_by(signals[tested], members, "group", compliance=compliance)
    found = [
        rates_by(members, "refused", "group").assign(rate="RR"),
        rates_by(members, "stopped", "group").assign(rate="RR with guard"),
        recovery.rename(columns={"refusal": "threshold"}).assign(rate="IRR"),
    ]
    return pd.concat(found, ignore_index=True)[["rate", "group", "threshold", *FIELDS]]


def pooled_rate(rows: pd.DataFrame) -> Rate:
    """The rates of several groups, rows with hits and count, as one rate with Wilson's interval.

    Tables of earlier versions hold no hits; there each row's are its share of its count.
    """
    known = rows[rows["count"] > 0]
    hits = known["hits"] if "hits" in known else (known["value"] * known["count"]).round()
    return wilson(int(hits.sum()), int(known["count"].sum()))
