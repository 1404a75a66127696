"""The main jobs as functions, under the names of the commands that do them.

In: models, prompts, and folders of runs. Out: a `Study` or a `Comparison`, kept in a folder. The work is done in
`demur.studies`; pages about it are made by `demur.report`.
"""

from __future__ import annotations

from pathlib import Path

from demur.judges import Judge
from demur.studies import Comparison, compare_runs, run_study

study = run_study


def compare(
    *runs: str | Path,
    out: str | Path | None = None,
    judge: Judge | None = None,
    intersect: bool = False,
    seed: int = 0,
) -> Comparison:
    """Compare runs of the same prompts, each with the first.

    runs : folders of studies or recordings, two or more. out : folder to keep the comparison in; by default nowhere.
    judge, intersect, seed : see `demur.studies.compare_runs`. Raises `InputError` for runs of other prompts.
    """
    found = compare_runs(runs, judge=judge, intersect=intersect, seed=seed)
    if out is not None:
        found.save(out)
    return found
