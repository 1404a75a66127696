"""Table 2: the same weights under their own order and from left to right, prompt by prompt.

In: a subject. Out: a tidy table in points, empty for models that know one order only.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from demur.dynamics import Rate
from demur.judges import Judge
from demur.studies.compare.compare import compare_runs
from demur.studies.paper.material import OF_DIFFUSION, PAPER_TABLES, PaperMaterial
from demur.studies.paper.published import SWAP, of_group
from demur.studies.paper.subject import COLUMNS, Subject


@PAPER_TABLES.table(
    "table_2_swap",
    columns=COLUMNS,
    title="Table 2: the same weights, diffusion order against left to right",
    needs=OF_DIFFUSION,
    place=2,
)
def swap(material: PaperMaterial) -> pd.DataFrame:
    """Table 2 of a model."""
    return swap_table(material.subject, material.judge)


def swap_table(subject: Subject, judge: Judge | None = None) -> pd.DataFrame:
    """Points of RR gained, with a judge of harm also of ASR lost, by diffusion over left to right, paired."""
    if subject.ordered is None:
        return subject.table([])
    harm = judge if judge is not None and judge.judges_harm else None
    table = compare_runs([subject.ordered, subject.study], judge=harm).table
    rows = []
    for row in table[table["baseline"].notna() & table["measure"].str.match("RR|ASR")].itertuples():
        lost = str(row.measure).startswith("ASR")
        published = of_group(SWAP, subject.name, str(row.group))
        rate = _turned(row) if lost else row
        name = f"{row.measure} lost, points" if lost else "RR gained, points"
        rows.append((str(row.group), name, rate, None if published is None else published[int(lost)]))
    return subject.table(rows)


def _turned(row: Any) -> Rate:
    return Rate(-row.value, -row.high, -row.low, row.count)
