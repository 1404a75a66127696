"""How many harmless test prompts every detector flags.

In: one anomaly score a generation and the limit it was calibrated to. Out: a tidy table with a row a detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from demur.dynamics import FIELDS, wilson
from demur.studies.study.detection import Detector
from demur.studies.study.material import STUDY_TABLES, Material

if TYPE_CHECKING:
    import pandas as pd


@STUDY_TABLES.table("false_positives", columns=["detector", "group", *FIELDS], title="Harmless test prompts flagged")
def false_positives(material: Material) -> pd.DataFrame:
    """The study's detectors."""
    return false_positive_table(material.detectors, material.generations)


def false_positive_table(detectors: Sequence[Detector], generations: pd.DataFrame) -> pd.DataFrame:
    """Share of the harmless test prompts that every detector flags."""
    import pandas as pd

    harmless = (generations["set"] == "test_harmless").to_numpy()
    rows: list[dict[str, Any]] = []
    for detector in detectors:
        rate = wilson(int((detector.scores[harmless] > detector.limit).sum()), int(harmless.sum()))
        rows.append({"detector": detector.name, "group": "test_harmless", **vars(rate)})
    return pd.DataFrame(rows)
