"""Table 3: refusals and attack success, attack by attack.

In: a subject. Out: a tidy table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from demur.studies.paper.material import OF_ATTACKS, PAPER_TABLES, PaperMaterial
from demur.studies.paper.published import RATES, of_group
from demur.studies.paper.subject import COLUMNS, Subject
from demur.studies.study.rates import pooled_rate
from demur.studies.study.results import Study


@PAPER_TABLES.table(
    "table_3_attacks",
    columns=COLUMNS,
    title="Table 3: refusals and attack success by attack",
    needs=OF_ATTACKS,
    place=3,
)
def attack_rates(material: PaperMaterial) -> pd.DataFrame:
    """Table 3 of a model."""
    return attack_rate_table(material.subject)


def attack_rate_table(subject: Subject) -> pd.DataFrame:
    """RR, and with a judge of harm ASR, of every group and of all attacks together."""
    rows = []
    for name, group, rate in rates_of(subject.study, "RR$|ASR", subject.attacks):
        published = of_group(RATES, subject.name, group)
        rows.append((group, name, rate, None if published is None else published[int(name != "RR")] / 100))
    return subject.table(rows)


def rates_of(study: Study, pattern: str, attacks: list[str]) -> Iterator[tuple[str, str, Any]]:
    """Name, group and rate of the study's rates whose name matches, and behind each those of `attacks` as one."""
    chosen = study.rates[study.rates["rate"].str.match(pattern)].copy()
    limits = chosen["threshold"].map(lambda limit: "" if pd.isna(limit) else f", λr = {limit:g}")
    for name, part in chosen.groupby(chosen["rate"] + limits, sort=False):
        for row in part.itertuples():
            yield str(name), str(row.group), row
        yield str(name), "all attacks", pooled_rate(part[part["group"].isin(attacks)])
