"""The command `demur harden`: a guard fitted on the shipped material, for one model.

In: a model. Out: a folder with recordings, guards and a table. What is fitted, and on what, says
`demur.studies.hardening`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli.options import BatchSize, Device, Dtype, ModelName, Resume, Revision


def harden(
    model: ModelName,
    out: Annotated[Path, typer.Option(help="Folder for recordings, guards and the table; a run resumes there.")],
    leave_out: Annotated[
        list[str] | None, typer.Option(help="Kind of prompts, wrapper or family of wrappers to leave out; repeatable.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="How much of the material: 1 to 8, about 260 generations each.")] = 8,
    quantile: Annotated[
        float, typer.Option(help="Quantile of held-out harmless errors that the guard allows.")
    ] = 0.985,
    by_kind: Annotated[
        bool, typer.Option("--by-kind", help="Keep the limit for every kind of harmless prompts, not for plain ones.")
    ] = False,
    batch_size: BatchSize = 32,
    seed: Annotated[int, typer.Option(help="Seed of the material.")] = 0,
    resume: Resume = True,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
) -> None:
    """Fit a probe guard on harmless and harmful requests in the same wrappers, and say what it is worth."""
    from demur.models import load
    from demur.studies import harden as run
    from demur.studies.hardening import GUARD_FILE, LOOKS_FILE, STREAMING_FILE, check_choices

    check_choices(rounds, leave_out or [], by_kind)
    found = run(
        load(model, device=device, dtype=dtype, revision=revision),
        out,
        rounds=rounds,
        leave_out=leave_out or [],
        quantile=quantile,
        by_kind=by_kind,
        batch_size=batch_size,
        seed=seed,
        resume=resume,
        say=typer.echo,
    )
    for row in found.false_positives.itertuples():
        of = f"{row.kind} prompts that set the limit" if row.sets_limit else f"held-out {row.kind} prompts"
        typer.echo(f"{row.detector}, {of}: {row.hits} of {row.count} flagged [{row.low:.1%}, {row.high:.1%}]")
    for attack, kinds in found.settings["resembling"].items():
        if kinds:
            typer.echo(f"resembles {attack}: {', '.join(kinds)}")
    typer.echo(f"guard: {out / GUARD_FILE}")
    typer.echo(f"while it generates: {out / STREAMING_FILE} on {out / LOOKS_FILE}")
