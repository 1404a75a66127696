"""How well a score tells attacks from harmless prompts.

In: one anomaly score a generation and the limit it was calibrated to. Out: a tidy table with a row a
detector, attack and subset. Attacks are never seen in training or calibration.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.dynamics import Rate, wilson

if TYPE_CHECKING:
    import pandas as pd

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


def detection_table(detectors: list[Detector], generations: pd.DataFrame) -> pd.DataFrame:
    """AUROC and true-positive rate of every detector for every attack, against the harmless test prompts.

    generations : as in `Study`; rows of the sets test_harmless, test_harmful and test_attacks are used.
    Subset "complied" leaves only generations in which the dictionary finds no refusal.
    """
    import pandas as pd

    harmless = (generations["set"] == "test_harmless").to_numpy()
    rows = []
    for detector in detectors:
        for group, subset, chosen in _positives(generations):
            positives, negatives = detector.scores[chosen], detector.scores[harmless]
            area, caught = auroc(negatives, positives), wilson(int((positives > detector.limit).sum()), len(positives))
            rows.append(
                {"detector": detector.name, "group": group, "subset": subset}
                | {"auroc": area.value, "auroc_low": area.low, "auroc_high": area.high}
                | {"tpr": caught.value, "tpr_low": caught.low, "tpr_high": caught.high}
                | {"positives": len(positives), "negatives": len(negatives)}
            )
    return pd.DataFrame(rows)


def false_positive_table(detectors: list[Detector], generations: pd.DataFrame) -> pd.DataFrame:
    """Share of the harmless test prompts that every detector flags."""
    import pandas as pd

    harmless = (generations["set"] == "test_harmless").to_numpy()
    rows: list[dict[str, Any]] = []
    for detector in detectors:
        rate = wilson(int((detector.scores[harmless] > detector.limit).sum()), int(harmless.sum()))
        rows.append({"detector": detector.name, "group": "test_harmless", **vars(rate)})
    return pd.DataFrame(rows)


def _positives(generations: pd.DataFrame) -> Iterator[tuple[str, str, np.ndarray]]:
    attacked = (generations["set"] == "test_attacks").to_numpy()
    plain = (generations["set"] == "test_harmful").to_numpy()
    complied = ~generations["refused"].fillna(value=False).to_numpy(dtype=bool)
    attacks = list(dict.fromkeys(generations.loc[attacked, "group"]))
    groups = [(name, attacked & (generations["group"] == name).to_numpy()) for name in attacks]
    groups += [(ALL_ATTACKS, attacked)] if attacks else []
    for name, chosen in [*groups, ("harmful", plain)]:
        yield name, "all", chosen
        yield name, "complied", chosen & complied


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
