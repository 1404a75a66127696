"""Table 3 and Figures 5 and 6: refusals, attack success and internal recovery, attack by attack, under every order.

In: a subject. Out: tidy tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from demur.studies.paper.published import RATES, of_group
from demur.studies.paper.subject import Subject
from demur.studies.study.rates import pooled_rate
from demur.studies.study.results import Study

FROM_LEFT = ", left to right"


def attack_rate_table(subject: Subject) -> pd.DataFrame:
    """RR, and with a judge of harm ASR, of every group and of all attacks together."""
    rows = []
    for name, group, rate in _rates(subject.study, "RR$|ASR", subject.attacks):
        published = of_group(RATES, subject.name, group)
        rows.append((group, name, rate, None if published is None else published[int(name != "RR")] / 100))
    return subject.table(rows)


def internal_recovery_table(subject: Subject) -> pd.DataFrame:
    """IRR at the three refusal limits, of every group, under the model's own order and from left to right."""
    rows = []
    for order, study in (("", subject.study), (FROM_LEFT, subject.ordered)):
        if study is not None:
            rows += [(group, name + order, rate, None) for name, group, rate in _rates(study, "IRR", subject.attacks)]
    return subject.table(rows)


def _rates(study: Study, pattern: str, attacks: list[str]) -> Iterator[tuple[str, str, Any]]:
    chosen = study.rates[study.rates["rate"].str.match(pattern)].copy()
    limits = chosen["threshold"].map(lambda limit: "" if pd.isna(limit) else f", λr = {limit:g}")
    for name, part in chosen.groupby(chosen["rate"] + limits, sort=False):
        for row in part.itertuples():
            yield str(name), str(row.group), row
        yield str(name), "all attacks", pooled_rate(part[part["group"].isin(attacks)])
