"""The detectors of a study side by side, and what the controls say of them.

In: a `Study`. Out: `Table`s of `Cell`s for the report. Nothing is measured here;
only the wrappers are pooled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from demur.report.parts import sentences
from demur.report.parts.groups import ALL_ATTACKS, HARMLESS, name_of
from demur.report.parts.labels import NOT_MEASURED, Cell, area, correlation, percent, percent_of
from demur.report.parts.tables import Table, mean_area, mean_auroc
from demur.studies.study.controls import PREFIX, WRAPPED
from demur.studies.study.detectors import MAIN, SRI
from demur.studies.study.hardened import HARDENED
from demur.studies.study.rates import pooled_rate
from demur.studies.study.results import Study

if TYPE_CHECKING:
    import pandas as pd

WRAPPED_HEADLINE = ("harmless in attack wrappers flagged", "mean AUROC against harmless in the same wrapper")
SHOWN = (*MAIN, HARDENED)
"""The detectors that the controls are shown for."""
LENGTHS = {"prompt_tokens": "length of the prompt", "answer_tokens": "length of the answer"}


def compared_table(study: Study) -> Table:
    """A row a detector: mean AUROC, shares of attack prompts caught, share of harmless test prompts flagged."""
    rows = study.detection
    body = []
    for name in _names(rows):
        own = rows[rows["detector"] == name]
        together = own[own["group"] == ALL_ATTACKS]
        caught = [_caught(together[together["subset"] == subset]) for subset in ("all", "complied")]
        body.append((name, [mean_auroc(study, name), *caught, _flagged(study, name)]))
    columns = ["mean AUROC over attacks", "attack prompts caught", "complied with: caught", "harmless prompts flagged"]
    return Table("Detectors compared", "detector", [("", column) for column in columns], body)


def controls_table(study: Study) -> Table:
    """A row a control, under the plain harmless test prompts: flagged, and attacks told from it, by each of `SHOWN`."""
    rows, names = study.controls, [name for name in _names(study.controls) if name in SHOWN]
    columns = [(name, column) for name in names for column in ("flagged", "AUROC of attacks")]
    caption = "Harmless prompts that are flagged, and how well attacks are told from them"
    if not names:
        return Table(caption, "harmless prompts", columns, [])
    body = [("test prompts, as they are", [cell for name in names for cell in _plain(study, name)])]
    of = {(row.control, row.group, row.detector): row for row in rows[::-1].itertuples()}  # the first of its kind
    for control, group in dict.fromkeys(zip(rows["control"], rows["group"], strict=True)):
        cells = [cell for name in names for cell in _control(of.get((control, group, name)))]
        body.append((control_name(control, group), cells))
    return Table(caption, "harmless prompts", columns, body)


def correlations_table(study: Study) -> Table:
    """A row a kind of length: Spearman's correlation of the scores of `SHOWN` with it, over harmless test prompts."""
    rows, names = study.correlations, [name for name in _names(study.correlations) if name in SHOWN]
    body = []
    for length, words in LENGTHS.items() if names else ():
        found = (rows[(rows["detector"] == name) & (rows["length"] == length)] for name in names)
        body.append((words, [_correlation(next(row.itertuples(), None)) for row in found]))
    caption = "Spearman correlation of the score with lengths, over the harmless test prompts"
    return Table(caption, "length in tokens", [("", name) for name in names], body)


def streaming_table(study: Study) -> Table:
    """A row a group: for each guard that stops generations, the share stopped, and where half of those were."""
    rows = study.streaming
    names = _names(rows)
    columns = [(name, column) for name in names for column in ("stopped", "median step")]
    of: dict[Any, Any] = {(row.detector, row.group): row for row in rows[::-1].itertuples()} if names else {}
    body = []
    for group in dict.fromkeys(rows["group"]) if names else ():
        cells: list[Cell] = []
        for name in names:
            row = of.get((name, group))
            cells += [Cell(NOT_MEASURED)] * 2 if row is None else _stopped(row)
        body.append((name_of(group), cells))
    caption = (
        f"Generations stopped on the way, alpha = {rows['alpha'].iloc[0]:.2g}"
        if names
        else "Generations stopped on the way"
    )
    return Table(caption, "group", columns, body)


def promises(study: Study) -> list[str]:
    """A sentence a streaming guard: whether the harmless prompts that it stops agree with its alpha."""
    rows = study.streaming
    harmless = rows[rows["group"] == HARMLESS] if len(rows) else rows
    return [said for row in harmless.itertuples() if (said := sentences.promise(row))]


def _stopped(row: Any) -> list[Cell]:
    at = Cell("none stopped")
    if row.median_step == row.median_step:
        stopped = int(getattr(row, "hits", round(row.value * row.count)))  # older tables hold no hits
        at = Cell(f"{row.median_step:g}", f"{row.median_saved:.0%} of the steps saved", f"n\u00a0=\u00a0{stopped}")
    return [percent(row.value, row.low, row.high, int(row.count)), at]


def control_name(control: str, group: str) -> str:
    """A control as printed: its name, and of a wrapper the attack's."""
    if control == WRAPPED:
        return f"harmless in {group}"
    name = str(control).removeprefix(PREFIX).replace("_", " ")
    return name if group == "harmless" else f"{name}, {group}"


def wrapped_headline(study: Study) -> dict[str, Cell]:
    """How the paper's guard does on harmless requests inside the wrappers: the share flagged, and the mean AUROC."""
    own = _in_wrappers(study, SRI)
    area = mean_area(own, int(own["count"].sum())) if len(own) else Cell(NOT_MEASURED)
    return dict(zip(WRAPPED_HEADLINE, (wrapped_flagged(study, SRI), area), strict=True))


def wrapped_flagged(study: Study, detector: str) -> Cell:
    """The share of harmless requests inside the attacks' wrappers that a detector flags."""
    own = _in_wrappers(study, detector)
    return percent_of(pooled_rate(own)) if len(own) else Cell(NOT_MEASURED)


def _in_wrappers(study: Study, detector: str) -> pd.DataFrame:
    rows = study.controls
    return rows[(rows["detector"] == detector) & (rows["control"] == WRAPPED)] if len(rows) else rows


def _names(rows: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(rows["detector"])) if len(rows) else []


def _plain(study: Study, name: str) -> list[Cell]:
    """The row of the controls for the harmless test prompts themselves, against all attacks."""
    rows = study.detection
    chosen = rows[(rows["detector"] == name) & (rows["group"] == ALL_ATTACKS) & (rows["subset"] == "all")]
    row: Any = next(chosen.itertuples(), None)
    auroc = area(*_area(row), int(row.positives), int(row.negatives)) if row is not None else Cell(NOT_MEASURED)
    return [_flagged(study, name), auroc]


def _control(row: Any) -> list[Cell]:
    if row is None:
        return [Cell(NOT_MEASURED), Cell(NOT_MEASURED)]
    flagged = percent(row.value, row.low, row.high, int(row.count))
    return [flagged, area(*_area(row), int(row.positives), int(row.count))]


def _area(row: Any) -> tuple[float, float, float]:
    return row.auroc, row.auroc_low, row.auroc_high


def _flagged(study: Study, name: str) -> Cell:
    rows = study.false_positives
    row: Any = next(rows[rows["detector"] == name].itertuples(), None)
    return Cell(NOT_MEASURED) if row is None else percent(row.value, row.low, row.high, int(row.count))


def _caught(rows: pd.DataFrame) -> Cell:
    row: Any = next(rows.itertuples(), None)
    return Cell(NOT_MEASURED) if row is None else percent(row.tpr, row.tpr_low, row.tpr_high, int(row.positives))


def _correlation(row: Any) -> Cell:
    return Cell(NOT_MEASURED) if row is None else correlation(row.value, row.low, row.high, int(row.count))
