"""What differs between runs, in words: their settings, and how often they refuse.

In: a `Comparison`. Out: sentences and `Cell`s for the first screen of its page. Nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demur.report.compare.cells import difference_cell, value_cell
from demur.report.parts.groups import name_of
from demur.report.parts.labels import Cell, plain
from demur.report.parts.sentences import sign_of
from demur.studies.compare.compare import ALL_HARMFUL, Comparison

NONE = "none"


def differing_context(comparison: Comparison) -> dict[str, Any]:
    """The sentence of the settings, one of each run's refusals, and the three numbers of the first screen."""
    group = _group(comparison)
    apart = [(run, _row(comparison, run, group, apart=True)) for run in comparison.runs[1:]]
    return {
        "differs": settings_that_differ(comparison.settings["runs"]),
        "said": [_said(run, comparison.runs[0], group, row) for run, row in apart],
        "three": _three(comparison, group),
    }


def settings_that_differ(runs: Sequence[Mapping[str, Any]]) -> str:
    """Which settings of the runs are not the same in all of them, with the value of each run."""
    settings = [_flat(run) for run in runs]
    names = list(dict.fromkeys(name for one in settings for name in one))
    differing = [name for name in names if len({one.get(name, NONE) for one in settings}) > 1]
    same = "" if "model" in differing else f"All are of the model {settings[0].get('model', NONE)}. "
    if not differing:
        return f"{same}No setting differs between the runs."
    parts = [f"{name} ({', '.join(one.get(name, NONE) for one in settings)})" for name in differing]
    return f"{same}The same prompts in every run; what differs, in the order of the runs: {'; '.join(parts)}."


def home_of(run: Mapping[str, Any]) -> Path:
    """The folder of a run, as it was when the runs were compared."""
    return Path(str(run["path"]))


def _flat(run: Mapping[str, Any]) -> dict[str, str]:
    sampler = run.get("sampler") or {}
    own = {
        "sampler" if name == "name" else str(name).replace("_", " "): plain(value) for name, value in sampler.items()
    }
    return {"model": plain(run.get("model")), "weights": plain(str(run.get("fingerprint", ""))[:12]), **own}


def _said(run: str, baseline: str, group: str, row: Any) -> str:
    """One paired difference in refusals, in words."""
    where = f"Of {name_of(group)} prompts" if "all" not in group else f"Of {group} prompts"
    if row is None:
        return f"{where}, {run} and {baseline} were not compared."
    cell = difference_cell(row)
    proof = f"{cell.interval}, {cell.cases}"
    if (sign := sign_of(row)) == 0:
        return f"{where}, no difference in refusals can be told between {run} and {baseline}: {cell.value} ({proof})."
    way = "more" if sign > 0 else "less"
    return f"{where}, {run} refuses {way} than {baseline}: {cell.value} ({proof})."


def _three(comparison: Comparison, group: str) -> dict[str, Cell]:
    """The refusals of the first two runs, and their paired difference."""
    first, second = comparison.runs[:2]
    name = name_of(group)
    return {
        f"{name} refused, {first}": value_cell(_row(comparison, first, group)),
        f"{name} refused, {second}": value_cell(_row(comparison, second, group)),
        "the second minus the first": difference_cell(_row(comparison, second, group, apart=True)),
    }


def _group(comparison: Comparison) -> str:
    """The group that the first screen is about: all harmful prompts, else the first one."""
    groups = list(dict.fromkeys(comparison.table["group"]))
    return ALL_HARMFUL if ALL_HARMFUL in groups or not groups else str(groups[0])


def _row(comparison: Comparison, run: str, group: str, *, apart: bool = False) -> Any:
    rows = comparison.table
    chosen = (rows["measure"] == "RR") & (rows["group"] == group) & (rows["run"] == run)
    chosen &= rows["baseline"].notna() == apart
    return next(rows[chosen].itertuples(), None)
