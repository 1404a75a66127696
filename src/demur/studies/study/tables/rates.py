"""Refusal and internal recovery rates of every group, with their counts and intervals.

In: the generations of a study and their signals. Out: one tidy table, with what the judge finds behind them. The attack
success rate needs a judge of harm, and a refusal dictionary is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from demur.dynamics import FIELDS, internal_recovery_rates_by, rates_by
from demur.studies.study.material import STUDY_TABLES, Material

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["rate", "group", "threshold", *FIELDS]


@STUDY_TABLES.table("rates", columns=COLUMNS, title="Rates of every group")
def rates(material: Material) -> pd.DataFrame:
    """RR, RR with guard and IRR, and HRR, FRR and ASR as far as the judge gives them."""
    import pandas as pd

    found = rate_table(material.generations, material.signals)
    return pd.concat([found, material.judged], ignore_index=True) if len(material.judged) else found


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
    return pd.concat(found, ignore_index=True)[COLUMNS]
