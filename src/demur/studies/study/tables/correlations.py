"""How the score of every detector goes with the lengths of harmless prompts and of their answers.

In: scores of a study's generations. Out: a tidy table of rank correlations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from demur.dynamics import Rate
from demur.studies.study.detection import Detector
from demur.studies.study.material import STUDY_TABLES, Material

if TYPE_CHECKING:
    import pandas as pd

LENGTHS = ("prompt_tokens", "answer_tokens")


@STUDY_TABLES.table(
    "correlations",
    columns=("detector", "length", "value", "low", "high", "count"),
    title="Correlation of the score with lengths",
)
def correlations(material: Material) -> pd.DataFrame:
    """The study's detectors."""
    return correlation_table(material.detectors, material.generations)


def correlation_table(detectors: Sequence[Detector], generations: pd.DataFrame) -> pd.DataFrame:
    """How the score of every detector goes with the lengths of harmless test prompts, and of their answers.

    Columns detector, length ("prompt_tokens" or "answer_tokens"), value (Spearman's rho), low, high, count.
    """
    import pandas as pd

    harmless = (generations["set"] == "test_harmless").to_numpy()
    rows = [
        {"detector": detector.name, "length": length}
        | vars(spearman(detector.scores[harmless], generations.loc[harmless, length].to_numpy(dtype=float)))
        for detector in detectors
        for length in LENGTHS
    ]
    return pd.DataFrame(rows).drop(columns="hits")  # a correlation has none


def spearman(first: np.ndarray, second: np.ndarray) -> Rate:
    """Spearman's rank correlation of two arrays ``[n]`` with its 95% interval; all NaN where one is constant or n < 4.

    The interval is NaN where the ranks agree, or oppose each other, throughout: then nothing tells its width.
    Source: Bonett and Wright (2000), Psychometrika 65, for the standard error on Fisher's scale.
    """
    from scipy.stats import spearmanr

    n = len(first)
    if n < 4 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return Rate(np.nan, np.nan, np.nan, n)
    value = float(spearmanr(first, second).statistic)
    if abs(value) > 1 - 1e-12:
        return Rate(value, np.nan, np.nan, n)
    half = 1.959964 * np.sqrt((1 + value**2 / 2) / (n - 3))
    low, high = np.tanh(np.arctanh(value) + np.array([-half, half]))
    return Rate(value, float(low), float(high), n)
