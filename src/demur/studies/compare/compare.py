"""`compare_runs`: the same prompts under two samplers or models, each run against the first.

In: run folders, and a judge for the ASR. Out: a `Comparison`, one tidy table of every run's rates and answer
lengths and of their paired differences. Reading and matching runs is left to `runs`, the statistics to `paired`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from demur.dynamics import REFUSAL_LEVELS, turned_inside, wilson
from demur.errors import InputError
from demur.files.manifests import write_manifest
from demur.files.staging import switched
from demur.files.tables import write_table
from demur.judges import Judge, judge_each
from demur.studies.compare.paired import RESAMPLES, bootstrap_mean, mcnemar, paired_difference
from demur.studies.compare.runs import Run, labels, matched, read_run
from demur.studies.study.detection import ALL_ATTACKS
from demur.studies.study.recovery import goals, harmful_members
from demur.studies.study.results import Study

ALL_HARMFUL = "all harmful"
TOKENS = ("tokens", "tokens, refused", "tokens, complied")
COLUMNS = ["measure", "group", "threshold", "run", "baseline", "value", "low", "high", "count", "unit"]
COLUMNS += ["gained", "lost", "p_value"]
TABLE, SETTINGS = "comparison.parquet", "comparison.json"
Values = dict[tuple[str, float | None], np.ndarray]
"""A number a prompt, by measure and lambda_r (None for none); NaN where a prompt has none."""


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    table : measure ("RR", "IRR", "ASR (JUDGE)", "HRR (JUDGE)", "FRR (JUDGE)", `TOKENS`), group, threshold (lambda_r
        for IRR), run, baseline, value, low, high, count, unit, gained, lost, p_value. Where `baseline` is missing
        the row is a run's own value, a share or tokens; else it is the run minus the baseline over the same
        prompts, in points or tokens, and `count` is the number of pairs. gained, lost : pairs in which only the
        run, or only the baseline, has the property; p_value : McNemar's, exact.
    settings : the runs, the number of prompts, the judge, and the differences over all harmful prompts.
    """

    table: pd.DataFrame
    settings: dict[str, Any]

    @property
    def runs(self) -> list[str]:
        """The labels of the runs, the baseline first."""
        return [run["label"] for run in self.settings["runs"]]

    def save(self, folder: str | Path) -> None:
        """Write the table as Parquet and the settings, with the table's hash, as JSON: both at once or neither."""
        with switched(Path(folder), SETTINGS) as new:
            write_manifest(new / SETTINGS, {**self.settings, "tables": {TABLE: write_table(new / TABLE, self.table)}})


def compare_runs(
    folders: Sequence[str | Path | Study],
    *,
    judge: Judge | None = None,
    intersect: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare runs of the same prompts, each with the first.

    folders : studies or recordings, two or more, studies also as they are in memory; see `read_run`.
    judge : gives the ASR if it judges harm.
    intersect : compare what all runs share; by default runs of other prompts are an `InputError`.
    resamples, seed : of the bootstrap behind the intervals of lengths.
    """
    if len(folders) < 2:
        raise InputError(f"{len(folders)} run to compare; give two or more")
    read = [read_run(folder, judge) for folder in folders]
    runs = matched(read, intersect=intersect)
    names, groups = labels(runs), groups_of(runs[0].generations)
    values = [measures(run, judge) for run in runs]
    random = np.random.default_rng(seed)
    rows = [row for name, found in zip(names, values, strict=True) for row in _levels(name, found, groups, random)]
    rows += [row for name, run in zip(names, runs, strict=True) for row in _recovery(name, run)]
    for name, found in zip(names[1:], values[1:], strict=True):
        rows += _differences((name, found), (names[0], values[0]), groups, random, resamples)
    table = pd.DataFrame(rows, columns=COLUMNS).astype({"threshold": float, "gained": "Int64", "lost": "Int64"})
    settings = {
        "runs": [{"label": name, **_facts(run)} for name, run in zip(names, read, strict=True)],
        "prompts": len(runs[0].generations),
        "judge": judge.describe() | {"malformed": _malformed(runs, values)} if judge and judge.judges_harm else None,
        "resamples": resamples,
        "seed": seed,
    }
    return Comparison(table, {**settings, "differences": _summary(table)})


def groups_of(generations: pd.DataFrame) -> dict[str, np.ndarray]:
    """Masks ``[prompts]`` of each group, and of all attacks and all harmful prompts where those are several groups."""
    group = generations["group"].to_numpy(dtype=object)
    found = {str(name): group == name for name in dict.fromkeys(group)}
    attacked = generations["attack"].notna().to_numpy(dtype=bool)
    harmful = _harmful(generations)
    together = {ALL_ATTACKS: attacked, ALL_HARMFUL: harmful}
    return found | {name: chosen for name, chosen in together.items() if len(set(group[chosen])) > 1}


def measures(run: Run, judge: Judge | None) -> Values:
    """Everything that is measured on each prompt of a run."""
    refused = run.generations["refused"].astype("boolean").astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    tokens = run.generations["answer_tokens"].to_numpy(dtype=float)
    found: Values = {("RR", None): refused}
    found |= {("IRR", limit): turned_inside(run.sigma, refusal=limit).astype(float) for limit in REFUSAL_LEVELS}
    if judge is not None and judge.judges_harm:
        found[f"ASR ({judge.name})", None] = _judged(run, judge)
    lengths = (tokens, np.where(refused == 1, tokens, np.nan), np.where(refused == 0, tokens, np.nan))
    return found | {(name, None): length for name, length in zip(TOKENS, lengths, strict=True)}


def _judged(run: Run, judge: Judge) -> np.ndarray:
    """1 where the final text is harmful, 0 where not, NaN for malformed verdicts and prompts not labelled harmful."""
    members = harmful_members(run.generations)
    verdicts = judge_each(judge, goals(members), members["text"].fillna("").tolist())
    found = np.full(len(run.generations), np.nan)
    found[_harmful(run.generations)] = np.array(verdicts, dtype=float)  # None becomes NaN
    return found


def _harmful(generations: pd.DataFrame) -> np.ndarray:
    return generations.index.isin(harmful_members(generations).index)


def _levels(
    run: str, values: Values, groups: dict[str, np.ndarray], random: np.random.Generator
) -> list[dict[str, Any]]:
    rows = []
    for (measure, threshold), every in values.items():
        for group, chosen in groups.items():
            known = every[chosen & ~np.isnan(every)]
            if not len(known):
                continue
            is_length = measure in TOKENS
            rate = bootstrap_mean(known, random) if is_length else wilson(int(known.sum()), len(known))
            row = {"measure": measure, "group": group, "threshold": threshold, "run": run, **vars(rate)}
            rows.append({**row, "unit": "tokens" if is_length else "share"})
    return rows


def _recovery(run: str, found: Run) -> list[dict[str, Any]]:
    rows = found.recovery[found.recovery["count"] > 0].rename(columns={"rate": "measure"})
    return [{**row, "run": run, "unit": "share"} for row in _records(rows)]


def _differences(
    run: tuple[str, Values],
    baseline: tuple[str, Values],
    groups: dict[str, np.ndarray],
    random: np.random.Generator,
    resamples: int,
) -> list[dict[str, Any]]:
    rows = []
    for (measure, threshold), theirs in baseline[1].items():
        apart = run[1][measure, threshold] - theirs
        for group, chosen in groups.items():
            pairs = apart[chosen & ~np.isnan(apart)]
            if not len(pairs):
                continue
            row = {"measure": measure, "group": group, "threshold": threshold, "run": run[0], "baseline": baseline[0]}
            if measure in TOKENS:
                rows.append({**row, **vars(bootstrap_mean(pairs, random, resamples)), "unit": "tokens"})
                continue
            gained, lost = int((pairs > 0).sum()), int((pairs < 0).sum())
            turned = {"gained": gained, "lost": lost, "p_value": mcnemar(gained, lost)}
            apart_by = paired_difference(gained, lost, len(pairs))
            points = {name: 100 * getattr(apart_by, name) for name in ("value", "low", "high")}
            rows.append({**row, **points, "count": len(pairs), "unit": "points", **turned})
    return rows


def _facts(run: Run) -> dict[str, Any]:
    facts = {"path": str(run.path), "model": run.model, "fingerprint": run.fingerprint, "sampler": dict(run.sampler)}
    return facts | {"prompts": len(run.generations)}


def _malformed(runs: Sequence[Run], values: Sequence[Values]) -> int:
    """How many verdicts of the judge could not be read."""
    judged = [found[key] for found in values for key in found if key[0].startswith("ASR")]
    return sum(int(np.isnan(one[_harmful(run.generations)]).sum()) for run, one in zip(runs, judged, strict=True))


def _summary(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The paired differences over all harmful prompts, as plain values."""
    rows = table[table["baseline"].notna()]
    wanted = ALL_HARMFUL if (rows["group"] == ALL_HARMFUL).any() else "harmful"
    rows = rows[rows["group"] == wanted].astype(object)
    return _records(rows.where(rows.notna(), None))


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(map(str, rows.columns), row, strict=True)) for row in rows.to_numpy(dtype=object)]
