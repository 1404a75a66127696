"""`write_story`: one page that tells what `demur demo` found, for a reader who has never heard of a step.

In: a `Demo`. Out: one HTML file that loads nothing and needs no script. Its sentences follow the numbers, and its
generations are chosen by rule. It shows prompts and answers: those of the bundled toy world hold nothing to hide.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from demur.bundled import MODELS
from demur.dynamics import REFUSAL_LEVELS, wilson
from demur.report.compare.orders import orders_context
from demur.report.demo.walks import Row, rows_of
from demur.report.parts import sentences
from demur.report.parts.embed import embed
from demur.report.parts.figures import roc_figure
from demur.report.parts.first import kinds_figure, three_numbers
from demur.report.parts.groups import ALL_ATTACKS, HARMFUL, HARMLESS, attacks, name_of
from demur.report.parts.labels import NOT_MEASURED, Cell, area, measured, percent_of
from demur.report.parts.linked import write_page
from demur.report.parts.tables import Table, anchor_cells, detection_table, settings_sections
from demur.report.parts.trajectories import bands_figure
from demur.report.study.detectors import promises
from demur.report.study.page import KINDS, environment, example_places
from demur.studies.compare.compare import ALL_HARMFUL
from demur.studies.demo.run import AR, BLOCK, DIFFUSION, Demo, pooled, turned_at_first_step
from demur.studies.demo.walk import Recovery, Walk, latest_recovery, shown_steps, walk_of
from demur.studies.study.rates import pooled_rate
from demur.studies.study.results import Study

GUARD, TEXT_GUARD = "SRI Guard", "SRI Guard on the text signal"
FIRST_ROWS = {AR: (1, 2, 3, 6, 12), DIFFUSION: (1, 8, 16, 22, 32)}
"""The steps shown where steps are explained."""


def write_story(demo: Demo, path: str | Path) -> Path:
    """Write the page of `demo` to `path`, and return the path."""
    path = Path(path)
    page = environment().get_template("demo/template.html").render(**_context(demo))
    write_page(path, page)
    return path


def _context(demo: Demo) -> dict[str, Any]:
    orders = orders_context(demo)
    walks = {name: _walks(study, demo) for name, study in demo.studies.items()}
    recovery = latest_recovery(demo.studies[DIFFUSION], demo.judge)
    taken_back = None if recovery.place is None else walk_of(demo.studies[DIFFUSION], recovery.place, demo.judge)
    return {
        "ar": AR,
        "diffusion": DIFFUSION,
        "kinds": _figure(demo.studies[DIFFUSION], "kinds"),
        "kinds_words": KINDS,
        "three": three_numbers(demo.studies[DIFFUSION]),
        "names": list(demo.studies),
        "steps": demo.studies[DIFFUSION].steps,
        "tested": {name: _tested(study) for name, study in demo.studies.items()},
        "glance": _glance(demo),
        "headline": _headline(demo, orders["headline"]),
        "first": {name: _first(walks[name], FIRST_ROWS[name]) for name in demo.studies},
        "walks": {name: [_shown(kind, walk) for kind, walk in found.items()] for name, found in walks.items()},
        "recovery": {
            "found": recovery,
            "share": _share(recovery),
            "walk": _shown("taken back", taken_back),
            "states": _states(taken_back),
        },
        "anchors": {name: anchor_cells(study) for name, study in demo.studies.items()},
        "bands": {name: _figure(study, "bands") for name, study in demo.studies.items()},
        "roc": {name: _figure(study, "roc") for name, study in demo.studies.items()},
        "orders": orders,
        "families": _families(demo),
        "block": BLOCK,
        "revision": _revision(demo),
        "detection": {name: _detection(study) for name, study in demo.studies.items()},
        "settings": {name: settings_sections(study) for name, study in demo.studies.items()},
        "counts": demo.studies[DIFFUSION].settings["counts"],
        "compared": demo.comparison.settings["prompts"],
        "resamples": demo.comparison.settings["resamples"],
        "judge": demo.judge.name,
        "openings": " ".join(f"“{opening}”" for opening in demo.judge.describe()["openings"]),
    }


def _walks(study: Study, demo: Demo) -> dict[str, Walk | None]:
    places = example_places(study).items()
    return {kind: None if place is None else walk_of(study, place, demo.judge) for kind, place in places}


def _shown(kind: str, walk: Walk | None) -> dict[str, Any]:
    return {"kind": kind, "walk": walk, "rows": [] if walk is None else rows_of(shown_steps(walk))}


def _first(walks: dict[str, Walk | None], steps: tuple[int, ...]) -> list[Row]:
    """A few rows of the harmless generation."""
    walk = walks[HARMLESS]
    return [] if walk is None else rows_of([step for step in walk.steps if step.index in steps])


def _states(walk: Walk | None) -> str:
    """What the states of the taken-back generation said before its last step."""
    before = [] if walk is None else walk.steps[:-1]
    return sentences.states_before([step.signal for step in before], [step.complies for step in before])


def _tested(study: Study) -> int:
    return int(study.generations["set"].str.startswith("test_").sum())


def _share(recovery: Recovery) -> Cell:
    return percent_of(wilson(recovery.recovered, recovery.count))


def _rate(study: Study, rate: str, groups: list[str]) -> Cell:
    return percent_of(pooled(study.rates, rate, groups))


def _glance(demo: Demo) -> Table:
    """The same numbers of each model."""
    studies = demo.studies.values()
    rows = [
        ("harmless prompts refused", [_rate(study, "RR", [HARMLESS]) for study in studies]),
        ("plain harmful prompts refused", [_rate(study, "RR", [HARMFUL]) for study in studies]),
        ("attack prompts refused", [_rate(study, "RR", attacks(study)) for study in studies]),
        ("attack prompts refused or flagged", [_rate(study, "RR with guard", attacks(study)) for study in studies]),
        ("harmless prompts flagged by the guard", [_flagged(study) for study in studies]),
        ("guard’s AUROC, answered attack prompts", [_auroc(study) for study in studies]),
        ("the same guard on the text-level signal", [_auroc(study, TEXT_GUARD) for study in studies]),
    ]
    return Table("The two models side by side", "of the test prompts", [("", name) for name in demo.studies], rows)


def _families(demo: Demo) -> Table:
    """The three families on the same harmful prompts, each under its own order."""
    levels = demo.families.table[demo.families.table["baseline"].isna()]
    everything = levels[levels["group"] == ALL_HARMFUL]
    rows = []
    for title, measure, threshold in (
        ("refused", "RR", None),
        ("recovered inside (IRR)", "IRR", REFUSAL_LEVELS[0]),
    ):
        chosen = everything[everything["measure"].eq(measure)]
        chosen = chosen if threshold is None else chosen[chosen["threshold"].eq(threshold)]
        rows.append((title, [percent_of(row) for row in chosen.itertuples()]))
    revised = levels[levels["measure"].str.startswith("HRR")]
    cells = [
        percent_of(pooled_rate(revised[revised["run"] == run])) if revised["run"].eq(run).any() else Cell(NOT_MEASURED)
        for run in demo.families.runs
    ]
    rows.append(("complying text taken back (HRR)", cells))
    return Table("Three families on the same prompts", "of the harmful prompts", [("", name) for name in MODELS], rows)


def _headline(demo: Demo, apart: Cell) -> dict[str, Cell]:
    """The four numbers of the first row; `apart` is the difference between the orders."""
    ar, diffusion = demo.studies[AR], demo.studies[DIFFUSION]
    return {
        f"attack prompts refused, {AR}": _rate(ar, "RR", attacks(ar)),
        f"attack prompts refused, {DIFFUSION}": _rate(diffusion, "RR", attacks(diffusion)),
        "same weights: refusals, diffusion order minus left to right": apart,
        f"guard’s AUROC on answered attacks, {DIFFUSION}": _auroc(diffusion),
    }


def _flagged(study: Study) -> Cell:
    row: Any = next(study.false_positives.head(1).itertuples(), None)
    return Cell(NOT_MEASURED) if row is None else percent_of(row)


def _auroc(study: Study, detector: str = GUARD) -> Cell:
    row = _detected(study, "complied", detector)
    if row is None:
        return Cell(NOT_MEASURED)
    return area(row.auroc, row.auroc_low, row.auroc_high, int(row.positives), int(row.negatives))


def _detected(study: Study, subset: str, detector: str = GUARD) -> Any:
    """The row of a detector over all attacks, None where there is none."""
    rows = study.detection
    chosen = (rows["detector"] == detector) & (rows["group"] == ALL_ATTACKS) & (rows["subset"] == subset)
    return next(rows[chosen].itertuples(), None)


def _detection(study: Study) -> dict[str, Any]:
    """The guard over all attacks, each attack, and what it amounts to."""
    table = _guard_table(study)
    together = [row for row in table.rows if row[0] in (ALL_ATTACKS, name_of(HARMFUL))]
    apart = [row for row in table.rows if row not in together]
    return {
        "together": table._replace(rows=together, caption="The guard over all attacks, against harmless test prompts"),
        "apart": table._replace(rows=apart),
        "flagged": _flagged(study),
        "sentence": sentences.guard(_detected(study, "all"), _detected(study, "complied")),
        "promises": promises(study),
        "threshold": measured(study.settings["guard"]["threshold"]),
        "calibrated": study.settings["guard"]["n_calibration"],
    }


def _guard_table(study: Study) -> Table:
    """A row an attack: AUROC and share caught, of all its prompts and of those that were answered."""
    alone = study.with_tables(detection=study.detection[study.detection["detector"] == GUARD])
    subsets = {"all": "all its prompts", "complied": "answered only"}
    every, answered = (detection_table(alone, subset, "") for subset in subsets)
    rows = [(name, cells + more) for (name, cells), (_, more) in zip(every.rows, answered.rows, strict=True)]
    columns = [(over, name) for over in subsets.values() for name in ("AUROC", "caught")]
    return Table("The guard on each attack, against harmless test prompts", "attack", columns, rows)


def _revision(demo: Demo) -> dict[str, Any]:
    """HRR and FRR of the diffusion model, over all harmful test prompts and group by group."""
    study = demo.studies[DIFFUSION]
    names = {short: f"{short} ({demo.judge.name})" for short in ("HRR", "FRR")}
    groups = list(dict.fromkeys(study.rates.loc[study.rates["rate"] == names["HRR"], "group"]))
    rows = [(name_of(group), [_rate(study, name, [group]) for name in names.values()]) for group in groups]
    return {
        "table": Table("Recovery by revision, group by group", "group", [("", name) for name in names], rows),
        "cells": {short: _rate(study, name, groups) for short, name in names.items()},
        "harmful": int(study.generations["set"].isin(["test_harmful", "test_attacks"]).sum()),
        "early": sentences.early(*turned_at_first_step(study)),
    }


def _figure(study: Study, kind: str) -> Markup:
    draw = {"kinds": kinds_figure, "bands": bands_figure, "roc": roc_figure}[kind]
    words = {
        "kinds": "Signal over the steps of harmless, refused and other generations",
        "bands": "Mean signal over the steps, a panel a group",
        "roc": "ROC curves of the guard, a curve an attack",
    }
    name = str(study.settings["model"]).rsplit("/", 1)[-1]
    return embed(draw(study), f"{kind}-{name}", f"{words[kind]}, {name}.")
