"""The main numbers of each command's results, as one tidy table and as small tables for the terminal.

In: a `Study`, a `Comparison`, scores, or what `harden` found. Out: a DataFrame, every row with its count and interval,
and the tables that `demur.cli.output` prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from demur.cli.output import Table, area, share

if TYPE_CHECKING:
    import pandas as pd

    from demur.studies import Comparison, Study

FIELDS = ["value", "low", "high", "count"]
SHOWN_RATES = ("RR", "RR with guard", "ASR")


def study_numbers(study: Study) -> pd.DataFrame:
    """Columns measure, detector, group, threshold, value, low, high, count: rates, AUROC, caught, false positives."""
    import pandas as pd

    found = study.detection[study.detection["subset"] == "all"]
    areas = found.rename(columns={"auroc": "value", "auroc_low": "low", "auroc_high": "high"})
    areas = areas.assign(measure="AUROC", count=found["positives"] + found["negatives"])
    caught = found.rename(columns={"tpr": "value", "tpr_low": "low", "tpr_high": "high", "positives": "count"})
    parts = [
        study.rates.rename(columns={"rate": "measure"}),
        areas,
        caught.assign(measure="caught"),
        study.false_positives.assign(measure="false positives"),
    ]
    columns = ["measure", "detector", "group", "threshold", *FIELDS]
    return pd.concat([part.reindex(columns=columns).astype(object) for part in parts], ignore_index=True)


def study_tables(study: Study) -> list[Table]:
    """Refusals by group, and each guard on all attacks together."""
    rates = study.rates[study.rates["rate"].str.startswith(SHOWN_RATES)]
    names = list(dict.fromkeys(rates["rate"]))
    groups = list(dict.fromkeys(rates["group"]))
    cells = {(row["rate"], row["group"]): row for _, row in rates.iterrows()}
    counted = {group: cells[names[0], group]["count"] for group in groups if (names[0], group) in cells}
    rows = [
        [group, str(counted.get(group, "")), *(share(cells[n, group]) if (n, group) in cells else "" for n in names)]
        for group in groups
    ]
    return [Table("Rates by group, with 95% intervals", ["group", "n", *map(_spelled, names)], rows), *_guards(study)]


def hardening_facts(study: Study) -> dict[str, Any]:
    """What a study keeps of the shipped material; empty where it used none."""
    from demur.report.study.hardened import kept_of

    kept = kept_of(study)
    return {"hardening": kept} if kept else {}


def hardening_lines(study: Study) -> list[str]:
    """What the hardened guards were fitted on, a line each, and for each attack what of it resembles the attack."""
    from demur.report.parts.groups import attacks
    from demur.report.study.hardened import hardening_words, kept_of, resembling_words

    if not kept_of(study):
        return []
    resembling = [f"resembles {attack}: {resembling_words(study, attack)}" for attack in attacks(study)]
    return [*hardening_words(study), *resembling]


def _guards(study: Study) -> list[Table]:
    found = study.detection[study.detection["subset"] == "all"]
    groups = list(dict.fromkeys(found["group"]))
    if not groups:
        return []
    group = "all attacks" if "all attacks" in groups else groups[0]
    found = found[found["group"] == group]
    wrong = {row["detector"]: share(row) for _, row in study.false_positives.iterrows()}
    rows = [
        [row["detector"], area(row, "auroc"), share(row, "tpr"), wrong.get(row["detector"], "")]
        for _, row in found.iterrows()
    ]
    first = found.iloc[0]
    title = f"Guards on {group} (n={first['positives']}) against harmless prompts (n={first['negatives']})"
    return [Table(title, ["guard", "AUROC", "caught", "false positives"], rows)]


def comparison_tables(found: Comparison) -> list[Table]:
    """Each run's refusals by group, and the differences over all harmful prompts."""
    table = found.table[found.table["measure"] == "RR"]
    own = table[table["baseline"].isna()]
    cells = {(row["group"], row["run"]): row for _, row in own.iterrows()}
    groups = list(dict.fromkeys(own["group"]))
    rows = [
        [group, str(cells[group, found.runs[0]]["count"]) if (group, found.runs[0]) in cells else ""]
        + [share(cells[group, run]) if (group, run) in cells else "" for run in found.runs]
        for group in groups
    ]
    apart = [
        [_named(row), row["run"], _difference(row), str(row["count"]), _chance(row["p_value"])]
        for row in found.settings["differences"]
    ]
    return [
        Table("Refused, with 95% intervals", ["group", "n", *found.runs], rows),
        Table(f"Against {found.runs[0]}, harmful prompts", ["measure", "run", "difference", "pairs", "p"], apart),
    ]


def flagged_numbers(scores: pd.DataFrame) -> pd.DataFrame:
    """Columns group, value, low, high, count: the share of each group that is flagged."""
    import pandas as pd

    from demur.dynamics import wilson

    groups = scores["group"].fillna("unlabelled").astype(str)
    found = [
        {"group": group, **vars(wilson(int(flags.sum()), len(flags)))}
        for group, flags in scores["flagged"].groupby(groups, sort=False)
    ]
    return pd.DataFrame(found, columns=["group", *FIELDS])


def share_table(title: str, found: pd.DataFrame, names: Sequence[str], column: str) -> Table:
    """A row a share: what `names` hold, its count and the share under the heading `column`."""
    rows = [[*(str(row[name]) for name in names), str(row["count"]), share(row)] for _, row in found.iterrows()]
    return Table(title, [*names, "n", column], rows)


def _spelled(rate: str) -> str:
    return {"RR": "refused", "RR with guard": "refused or flagged"}.get(rate, rate)


def _named(row: Any) -> str:
    return row["measure"] if row["threshold"] is None else f"{row['measure']} below {row['threshold']:g}"


def _difference(row: Any) -> str:
    return f"{row['value']:+.1f} {row['unit']} [{row['low']:+.1f}, {row['high']:+.1f}]"


def _chance(value: Any) -> str:
    return "" if value is None or value != value else f"{value:.2g}"
