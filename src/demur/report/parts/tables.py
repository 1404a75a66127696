"""The tables of a study as a reader sees them, and the numbers of the headline.

In: a `Study`. Out: `Table`s of `Cell`s, in which no value stands without its interval and count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from demur.dynamics import wilson
from demur.files.listed import FILES
from demur.report.parts.groups import ALL_ATTACKS, HARMFUL, RATE_COLUMNS, attacks, name_of
from demur.report.parts.labels import NOT_MEASURED, Cell, area, percent, percent_of, plain
from demur.studies.study.detectors import DIRECTION, SRI, TEXT
from demur.studies.study.hardened import HARDENED
from demur.studies.study.results import Study

if TYPE_CHECKING:
    import pandas as pd

RATE_NAMES = {"RR": "refused (RR)", "RR with guard": "refused or flagged", "IRR": "internal recovery (IRR)"}

SHOWN = (SRI, DIRECTION, TEXT, HARDENED)
"""The detectors with columns of their own, where a row is an attack."""


class Table(NamedTuple):
    """A table: `columns` are (heading over them, heading) pairs, `rows` (name, cells) pairs."""

    caption: str
    corner: str
    columns: list[tuple[str, str]]
    rows: list[tuple[str, list[Cell]]]

    @property
    def spans(self) -> list[tuple[str, int]]:
        """The upper headings with the number of columns under each; empty where there are none."""
        upper: dict[str, int] = {}
        for name, _ in self.columns:
            upper[name] = upper.get(name, 0) + 1
        return list(upper.items()) if any(upper) else []


def rates_table(study: Study) -> Table:
    """A row a group: refusal rates and internal recovery rates."""
    rates = study.rates.reindex(columns=RATE_COLUMNS).astype({"threshold": float}).fillna({"threshold": -1.0})
    keys = list(dict.fromkeys(zip(rates["rate"], rates["threshold"], strict=True)))
    found = {(row.group, row.rate, row.threshold): percent_of(row) for row in rates.itertuples()}
    rows = [
        (name_of(group), [found.get((group, *key), Cell(NOT_MEASURED)) for key in keys])
        for group in dict.fromkeys(rates["group"])
    ]
    columns = [(RATE_NAMES.get(name, name), f"λr = {limit:g}" if limit >= 0 else "") for name, limit in keys]
    return Table("Share of the generations of each group, with 95% interval and count", "group", columns, rows)


def detection_table(study: Study, subset: str, caption: str) -> Table:
    """A row an attack: AUROC and share caught at the calibrated threshold, for the detectors of `SHOWN`."""
    chosen = study.detection[study.detection["subset"] == subset]
    detectors = [name for name in SHOWN if (chosen["detector"] == name).any()]
    of: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    # Found once, for a filter a cell reads all rows each time; names may be no valid UTF-8, which groupby refuses.
    for place, key in enumerate(zip(chosen["group"], chosen["detector"], strict=True)):
        of[key].append(place)
    rows = []
    for group in dict.fromkeys(chosen["group"]):
        cells: list[Cell] = []
        for detector in detectors:
            cells += _detection(chosen.iloc[of[group, detector]])
        rows.append((name_of(group), cells))
    return Table(caption, "attack", [(name, column) for name in detectors for column in ("AUROC", "caught")], rows)


def headline(study: Study) -> dict[str, Cell]:
    """The numbers that the page begins with."""
    caught = _guard_rows(study, "all")
    caught = caught[caught["group"] == ALL_ATTACKS]
    flagged = study.false_positives.head(1)
    rates = study.rates.reindex(columns=RATE_COLUMNS)
    plain_refusals = rates[(rates["rate"] == "RR") & (rates["group"] == HARMFUL)]
    return {
        "harmless prompts flagged": _first_rate(flagged),
        "mean AUROC over attacks": mean_auroc(study),
        "attack prompts flagged": _detection(caught)[1],
        "plain harmful prompts refused": _first_rate(plain_refusals),
    }


def mean_auroc(study: Study, detector: str | None = None) -> Cell:
    """The mean of a detector's AUROC over attacks, by default the guard's.

    All attacks share the harmless prompts, so their errors are not independent; the mean of the bounds is an
    interval that is not too narrow, however strongly they go together.
    """
    rows = study.detection
    if not len(rows):
        return Cell(NOT_MEASURED)
    name = detector or rows["detector"].iloc[0]
    rows = rows[(rows["detector"] == name) & (rows["subset"] == "all") & rows["group"].isin(attacks(study))]
    return mean_area(rows, int(rows["negatives"].max()) if len(rows) else 0)


def mean_area(rows: pd.DataFrame, negatives: int) -> Cell:
    """The mean AUROC of `rows`, one an attack, with the mean of their bounds."""
    rows = rows.dropna(subset=["auroc", "auroc_low", "auroc_high"])
    if not len(rows):
        return Cell(NOT_MEASURED)
    value, low, high = rows[["auroc", "auroc_low", "auroc_high"]].mean()
    cell = area(value, low, high, int(rows["positives"].sum()), negatives)
    return cell._replace(cases=f"{cell.cases}, {len(rows)} attack{'s' if len(rows) > 1 else ''}")


def anchor_cells(study: Study) -> dict[str, dict[str, Any]]:
    """For each side of the anchors: prompts seen and kept, and the refusal rate among those seen."""
    sides = {}
    for side, count in _mapping(study.settings.get("anchors")).items():
        if seen := int(count.get("seen", 0)):
            rate = wilson(int(count.get("refused", 0)), seen)
            sides[side] = {"seen": seen, "kept": count.get("kept", 0), "refused": percent_of(rate)}
    return sides


def settings_sections(study: Study) -> list[tuple[str, list[tuple[str, str]]]]:
    """Every setting but the quick check and the files as text, those that hold others as a section of their own."""
    settings = {name: value for name, value in study.settings.items() if name not in ("check", FILES)}
    single = [(name.replace("_", " "), value) for name, value in settings.items() if not _mapping(value)]
    sections = [("study", [(name, plain(value)) for name, value in single])]
    for name, value in settings.items():
        if _mapping(value):
            sections.append((name.replace("_", " "), [(str(k).replace("_", " "), _flat(v)) for k, v in value.items()]))
    return sections


def _flat(value: Any) -> str:
    inner = _mapping(value)
    return ", ".join(f"{name} {_flat(item)}" for name, item in inner.items()) if inner else plain(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _guard_rows(study: Study, subset: str) -> pd.DataFrame:
    """The detection rows of the first detector, which is the paper's guard."""
    rows = study.detection
    return rows[(rows["detector"] == rows["detector"].iloc[0]) & (rows["subset"] == subset)] if len(rows) else rows


def _first_rate(rows: pd.DataFrame) -> Cell:
    return percent_of(next(rows.itertuples())) if len(rows) else Cell(NOT_MEASURED)


def _detection(rows: pd.DataFrame) -> list[Cell]:
    if not len(rows):
        return [Cell(NOT_MEASURED), Cell(NOT_MEASURED)]
    row = rows.iloc[0]
    positives, negatives = int(row["positives"]), int(row["negatives"])
    return [
        area(row["auroc"], row["auroc_low"], row["auroc_high"], positives, negatives),
        percent(row["tpr"], row["tpr_low"], row["tpr_high"], positives),
    ]
