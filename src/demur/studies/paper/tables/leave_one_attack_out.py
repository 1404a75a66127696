"""The detector chosen on all attacks but one, measured on that one.

In: a subject. Out: a tidy table.
"""

from __future__ import annotations

import pandas as pd

from demur.dynamics import Rate
from demur.studies.paper.material import OF_ATTACKS, PAPER_TABLES, PaperMaterial
from demur.studies.paper.subject import COLUMNS, Row, Subject


@PAPER_TABLES.table(
    "leave_one_attack_out",
    columns=COLUMNS,
    title="The best detector, chosen without the attack it is measured on",
    needs=OF_ATTACKS,
    place=20,
)
def leave_one_attack_out(material: PaperMaterial) -> pd.DataFrame:
    """The table of a model."""
    return leave_one_attack_out_table(material.subject)


def leave_one_attack_out_table(subject: Subject) -> pd.DataFrame:
    """For each attack the detector with the best mean AUROC on the others, and how it does on this one."""
    rows = subject.study.detection[subject.study.detection["subset"] == "all"]
    areas = rows.pivot_table(index="detector", columns="group", values="auroc").reindex(columns=subject.attacks)
    found: list[Row] = []
    notes: list[str] = []
    for attack in subject.attacks if len(subject.attacks) > 1 else []:
        best = str(areas.drop(columns=attack).mean(axis=1).idxmax())
        row = rows[(rows["detector"] == best) & (rows["group"] == attack)].iloc[0]
        count = int(row["positives"] + row["negatives"])
        caught = Rate(row["tpr"], row["tpr_low"], row["tpr_high"], int(row["positives"]))
        found.append((attack, "AUROC", Rate(row["auroc"], row["auroc_low"], row["auroc_high"], count), None))
        found.append((attack, "caught", caught, None))
        notes += [best, best]
    return subject.table(found, notes)
