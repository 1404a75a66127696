"""The values and differences of a comparison as a reader sees them.

In: rows of `Comparison.table`. Out: `Cell`s.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from demur.report.parts.labels import NO_INTERVAL, NOT_MEASURED, Cell, percent_of


def value_cell(row: Any) -> Cell:
    """A run's own value, from a row of `Comparison.table`."""
    if row is None or row.unit == "share":
        return Cell(NOT_MEASURED) if row is None else percent_of(row)
    interval = f"{row.low:.1f}–{row.high:.1f}" if np.isfinite(row.low) else NO_INTERVAL
    return Cell(f"{row.value:.1f}", interval, f"n\u00a0=\u00a0{row.count}")


def difference_cell(row: Any) -> Cell:
    """A paired difference, from a row of `Comparison.table`."""
    if row is None:
        return Cell(NOT_MEASURED)
    p = "" if pd.isna(row.p_value) else f", p\u00a0=\u00a0{row.p_value:.2g}"
    interval = f"{row.low:+.1f} to {row.high:+.1f}" if np.isfinite(row.low) else NO_INTERVAL
    return Cell(f"{row.value:+.1f} {row.unit}", interval, f"{row.count}\u00a0pairs{p}")
