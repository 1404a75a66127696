"""Attacks against harmless prompts of other kinds.

In: a subject. Out: a tidy table of AUROCs.
"""

from __future__ import annotations

import pandas as pd

from demur.studies.paper.material import OF_ATTACKS, PAPER_TABLES, PaperMaterial
from demur.studies.paper.subject import COLUMNS, Row, Subject
from demur.studies.study.controls import PREFIX
from demur.studies.study.detection import auroc
from demur.studies.study.detectors import MAIN


@PAPER_TABLES.table(
    "cross_dataset",
    columns=COLUMNS,
    title="Attacks against other harmless prompts",
    needs=OF_ATTACKS,
    place=21,
    areas=True,
)
def cross_dataset(material: PaperMaterial) -> pd.DataFrame:
    """The table of a model."""
    return cross_dataset_table(material.subject)


def cross_dataset_table(subject: Subject) -> pd.DataFrame:
    """AUROC of each attack against each set of harmless test and control prompts, for the guards of `MAIN`."""
    study = subject.study
    found: list[Row] = []
    sets, groups = study.generations["set"].to_numpy(dtype=str), study.generations["group"].to_numpy(dtype=str)
    harmless = [one for one in dict.fromkeys(sets) if one == "test_harmless" or one.startswith(PREFIX)]
    for detector in MAIN:
        scores = study.scores[detector].to_numpy()
        for source in harmless:
            for attack in subject.attacks:
                positives = scores[(sets == "test_attacks") & (groups == attack)]
                name = source.removeprefix(PREFIX).replace("_", " ")
                found.append((attack, f"{detector}, against {name}", auroc(scores[sets == source], positives), None))
    return subject.table(found)
