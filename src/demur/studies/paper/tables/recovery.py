"""Figures 5 and 6: internal recovery, attack by attack, under every order.

In: a subject. Out: a tidy table.
"""

from __future__ import annotations

import pandas as pd

from demur.studies.paper.material import OF_ATTACKS, PAPER_TABLES, PaperMaterial
from demur.studies.paper.subject import COLUMNS, Subject
from demur.studies.paper.tables.attack_rates import rates_of

FROM_LEFT = ", left to right"


@PAPER_TABLES.table(
    "figures_5_6_recovery",
    columns=COLUMNS,
    title="Figures 5 and 6: internal recovery",
    needs=OF_ATTACKS,
    place=5,
)
def recovery(material: PaperMaterial) -> pd.DataFrame:
    """The rates of a model."""
    return internal_recovery_table(material.subject)


def internal_recovery_table(subject: Subject) -> pd.DataFrame:
    """IRR at the three refusal limits, of every group, under the model's own order and from left to right."""
    rows = []
    for order, study in (("", subject.study), (FROM_LEFT, subject.ordered)):
        if study is not None:
            rows += [(group, name + order, rate, None) for name, group, rate in rates_of(study, "IRR", subject.attacks)]
    return subject.table(rows)
