"""Harmless prompts of other kinds: how many of each every detector flags, and whether attacks can be told from them.

In: scores of a study's generations. Out: a tidy table with a row a detector and control.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from demur.dynamics import FIELDS, wilson
from demur.studies.study.controls import PREFIX, WRAPPED
from demur.studies.study.detection import Detector, auroc
from demur.studies.study.material import STUDY_TABLES, Material

if TYPE_CHECKING:
    import pandas as pd

CONTROL_COLUMNS = ["detector", "control", "group", *FIELDS]
CONTROL_COLUMNS += ["auroc", "auroc_low", "auroc_high", "positives"]


@STUDY_TABLES.table("controls", columns=CONTROL_COLUMNS, title="Controls")
def controls(material: Material) -> pd.DataFrame:
    """The study's detectors on its controls."""
    return control_table(material.detectors, material.generations)


def control_table(detectors: Sequence[Detector], generations: pd.DataFrame) -> pd.DataFrame:
    """Every detector on every control: the share flagged, and attacks against it.

    Columns detector, control (name of the set), group (the attack whose wrapper it is, else "harmless"), value, low,
    high, count, hits (share flagged), and auroc, auroc_low, auroc_high, positives: the attack's own prompts, for other
    controls those of all attacks, against the control's.
    """
    import pandas as pd

    sets, groups = generations["set"].to_numpy(dtype=str), generations["group"].to_numpy(dtype=str)
    keys = dict.fromkeys(zip(sets, groups, strict=True))
    rows = []
    for detector in detectors:
        for control, group in (key for key in keys if key[0].startswith(PREFIX)):
            members = detector.scores[(sets == control) & (groups == group)]
            attacked = (sets == "test_attacks") & ((groups == group) | (control != WRAPPED))
            area = auroc(members, detector.scores[attacked])
            rows.append(
                {"detector": detector.name, "control": control, "group": group}
                | vars(wilson(int((members > detector.limit).sum()), len(members)))
                | {"auroc": area.value, "auroc_low": area.low, "auroc_high": area.high}
                | {"positives": int(attacked.sum())}
            )
    return pd.DataFrame(rows, columns=CONTROL_COLUMNS)
