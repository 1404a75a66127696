"""The main jobs as functions, under the names of the commands that do them.

In: models, prompts, and folders of runs. Out: a `Study` or a `Comparison`, kept in a folder with its pages. The work is
done in `demur.studies` and `demur.report`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.judges import Judge
from demur.studies import Comparison, Study, compare_runs, run_study

if TYPE_CHECKING:
    import torch

    from demur.models import Model


def study(
    model: Model | str | Path | torch.nn.Module,
    prompts: str | Path,
    out: str | Path,
    *,
    show_text: bool = False,
    **options: Any,
) -> Study:
    """Record every prompt set, fit anchors and guards, measure, and write the report and its figures.

    model, prompts, out : as for `demur.studies.run_study`, and `options` are its others: tokenizer, sampler, steps,
        layers, batch_size, limit, quantile, judge, seed, resume, check, harden, harden_rounds, harden_longest,
        progress, read, say.
    show_text : put prompts and answers of the examples into the report.
    """
    from demur.report import save_figures, write_report

    found = run_study(model, prompts, out, **options)
    save_figures(found, Path(out) / "figures")
    write_report(found, Path(out) / "report.html", show_text=show_text)
    return found


def compare(
    *runs: str | Path,
    out: str | Path | None = None,
    judge: Judge | None = None,
    intersect: bool = False,
    seed: int = 0,
) -> Comparison:
    """Compare runs of the same prompts, each with the first.

    runs : folders of studies or recordings, two or more. out : folder for the comparison and its page; by default none.
    judge, intersect, seed : see `demur.studies.compare_runs`. Raises `InputError` for runs of other prompts.
    """
    found = compare_runs(runs, judge=judge, intersect=intersect, seed=seed)
    if out is not None:
        from demur.report import write_comparison

        found.save(out)
        write_comparison(found, out)
    return found
