"""The false-positive rate that a limit gives, against the one it was set for.

In: a subject. Out: a tidy table.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from demur.dynamics import wilson
from demur.studies.paper.material import OF_ATTACKS, PAPER_TABLES, PaperMaterial
from demur.studies.paper.subject import COLUMNS, Row, Subject
from demur.studies.study.directions import CALIBRATION

NOMINAL = (0.01, 0.02, 0.05, 0.1, 0.2)
SET_FOR = "{}, set for {:.0%}"


@PAPER_TABLES.table(
    "calibration",
    columns=COLUMNS,
    title="What limits give against what they were set for",
    needs=OF_ATTACKS,
    place=22,
)
def calibration(material: PaperMaterial) -> pd.DataFrame:
    """The table of a model."""
    return calibration_table(material.subject)


def calibration_table(subject: Subject) -> pd.DataFrame:
    """False positives on harmless test prompts, and all attacks caught, at limits set for each rate of `NOMINAL`."""
    study = subject.study
    found: list[Row] = []
    sets = study.generations["set"].to_numpy(dtype=str)
    for detector in study.scores.columns:
        scores = study.scores[detector].to_numpy()
        for nominal in NOMINAL:
            over = scores > np.quantile(scores[sets == CALIBRATION], 1 - nominal)
            for what, chosen in (("flagged, harmless", "test_harmless"), ("caught, all attacks", "test_attacks")):
                hits = over[sets == chosen]
                rate = wilson(int(hits.sum()), len(hits))
                found.append((detector, SET_FOR.format(what, nominal), rate, None))
    return subject.table(found)
