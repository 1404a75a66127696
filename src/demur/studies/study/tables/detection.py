"""How well every detector tells attacks from harmless prompts.

In: one anomaly score a generation and the limit it was calibrated to. Out: a tidy table with a row a
detector, attack and subset. Attacks are never seen in training or calibration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from demur.dynamics import wilson
from demur.studies.study.detection import ALL_ATTACKS, Detector, auroc
from demur.studies.study.material import STUDY_TABLES, Material

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["detector", "group", "subset", "auroc", "auroc_low", "auroc_high", "tpr", "tpr_low", "tpr_high"]
COLUMNS += ["positives", "negatives"]


@STUDY_TABLES.table("detection", columns=COLUMNS, title="Attacks told from harmless prompts")
def detection(material: Material) -> pd.DataFrame:
    """The study's detectors."""
    return detection_table(material.detectors, material.generations)


def detection_table(detectors: Sequence[Detector], generations: pd.DataFrame) -> pd.DataFrame:
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
