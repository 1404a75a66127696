"""`auroc`: how well a score tells attacks from harmless prompts; `Detector`: a score a generation, with its limit.

In: scores. Out: an area with its interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demur.dynamics import Rate

ALL_ATTACKS = "all attacks"
FEWEST = 8
"""Fewer cases than these on either side tell too little of their own spread for DeLong's method."""
_Z = 1.959964


@dataclass(frozen=True)
class Detector:
    """A score for every generation, higher where it is more unlike harmless ones, and its calibrated limit."""

    name: str
    scores: np.ndarray
    limit: float


def auroc(negatives: np.ndarray, positives: np.ndarray) -> Rate:
    """Area under the ROC curve with its 95% interval by DeLong's method, on the logit scale.

    negatives, positives : scores ``[n]`` and ``[m]``. `count` of the result is n + m; all NaN where one is empty.
    With fewer than `FEWEST` scores on one side, and where all are placed alike, the spread cannot be had from the
    scores; there the interval is Wilson's of a share of min(n, m) cases, which is never too narrow.
    Source: DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44.
    """
    n, m = len(negatives), len(positives)
    if not n or not m:
        return Rate(np.nan, np.nan, np.nan, n + m)
    ordered = np.sort(negatives)
    below = np.searchsorted(ordered, positives, side="left")
    up_to = np.searchsorted(ordered, positives, side="right")
    placed = (below + up_to) / (2 * n)  # for each positive, the share of negatives under it
    ordered = np.sort(positives)
    above = m - (np.searchsorted(ordered, negatives, "left") + np.searchsorted(ordered, negatives, "right")) / 2
    value = float(placed.mean())
    error = np.sqrt(_variance(placed) / m + _variance(above / m) / n)
    low, high = _logit_interval(value, error, n, m)
    return Rate(value, low, high, n + m)


def _variance(values: np.ndarray) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def _widest(value: float, cases: int) -> tuple[float, float]:
    """Wilson's interval of a mean `value` of numbers in [0, 1], whose variance is at most value * (1 - value)."""
    middle = (value + _Z**2 / (2 * cases)) / (1 + _Z**2 / cases)
    half = _Z * np.sqrt(value * (1 - value) / cases + _Z**2 / (4 * cases**2)) / (1 + _Z**2 / cases)
    return float(max(middle - half, 0.0)), float(min(middle + half, 1.0))


def _logit_interval(value: float, error: float, n: int, m: int) -> tuple[float, float]:
    """The 95% interval on the logit scale, which keeps it inside [0, 1], or `_widest` where it cannot be had."""
    if value in (0.0, 1.0) or error == 0 or min(n, m) < FEWEST:
        return _widest(value, min(n, m))
    logit = np.log(value / (1 - value))
    half = _Z * error / (value * (1 - value))
    low, high = 1 / (1 + np.exp(-(logit + np.array([-half, half]))))
    return float(low), float(high)
