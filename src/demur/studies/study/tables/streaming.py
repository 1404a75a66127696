"""What stopping generations on their way does: how many are stopped, and how much of them is never made.

In: the step at which each generation would be stopped. Out: a tidy table. How a stop is decided, and with what bound on
harmless generations, is the guard's matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from demur.dynamics import FIELDS, wilson
from demur.studies.study.detection import ALL_ATTACKS
from demur.studies.study.material import STUDY_TABLES, Material

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["detector", "group", "alpha", *FIELDS, "median_step", "median_saved"]


@STUDY_TABLES.table("streaming", columns=COLUMNS, title="Generations stopped on the way")
def streaming(material: Material) -> pd.DataFrame:
    """The study's streaming guards."""
    return streaming_table(material.stops, material.generations, material.steps)


def streaming_table(
    stops: Mapping[str, tuple[float, np.ndarray]], generations: pd.DataFrame, steps: int
) -> pd.DataFrame:
    """Every streaming guard on every group of the test sets.

    stops : by name of the guard its alpha and, a generation, the step it is stopped at, 0 where it never is.
    Columns detector, group, alpha, value, low, high, count, hits (share stopped), median_step (of those stopped)
    and median_saved (their share of steps never made), both missing where none is stopped.
    """
    import pandas as pd

    tested = generations["set"].str.startswith("test_").to_numpy(dtype=bool)
    groups = generations["group"].to_numpy(dtype=str)
    members = {str(name): tested & (groups == name) for name in dict.fromkeys(groups[tested])}
    members[ALL_ATTACKS] = (generations["set"] == "test_attacks").to_numpy(dtype=bool)
    rows = []
    for name, (alpha, found) in stops.items():
        for group, chosen in members.items():
            stopped = found[chosen & (found > 0)]
            middle = float(np.median(stopped)) if len(stopped) else np.nan
            rows.append(
                {"detector": name, "group": group, "alpha": alpha, **vars(wilson(len(stopped), int(chosen.sum())))}
                | {"median_step": middle, "median_saved": 1 - middle / steps}
            )
    return pd.DataFrame(rows, columns=COLUMNS)
