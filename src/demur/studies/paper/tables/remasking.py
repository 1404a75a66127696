"""Table 1: how often a harmful text, once predicted, is taken back (HRR), and for good (FRR).

In: a subject. Out: a tidy table, empty for models that never revise a token.
"""

from __future__ import annotations

import pandas as pd

from demur.studies.paper.material import OF_DIFFUSION, PAPER_TABLES, PaperMaterial
from demur.studies.paper.published import RECOVERY, paper_model
from demur.studies.paper.subject import COLUMNS, Row, Subject
from demur.studies.study.rates import pooled_rate


@PAPER_TABLES.table(
    "table_1_remasking",
    columns=COLUMNS,
    title="Table 1: harmful texts taken back",
    needs=OF_DIFFUSION,
    place=1,
)
def remasking(material: PaperMaterial) -> pd.DataFrame:
    """Table 1 of a model."""
    return remasking_table(material.subject)


def remasking_table(subject: Subject) -> pd.DataFrame:
    """HRR and FRR by the study's judge, of every group and of all harmful prompts together."""
    rates = subject.study.rates[subject.study.rates["rate"].str.match("HRR|FRR")]
    rows: list[Row] = []
    for place, (name, part) in enumerate(rates.groupby("rate", sort=False)):
        published = RECOVERY.get(paper_model(subject.name) or "")
        rows.append(("all harmful", str(name), pooled_rate(part), published[place] if published else None))
        rows += [(str(row.group), str(name), row, None) for row in part.itertuples()]
    return subject.table(rows)
