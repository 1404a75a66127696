"""The command `demur harden`: a guard fitted on the shipped material, for one model.

In: a model. Out: a folder with recordings, guards and a table. What is fitted, and on what, says
`demur.studies.hardening`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from demur.cli.bar import watched
from demur.cli.options import AsCsv, AsJson, BatchSize, Device, Dtype, ModelName, Quiet, Resume, Revision, Steps
from demur.cli.output import Output

TOLD = ("detector", "kind", "prompts")


def harden(
    model: ModelName,
    out: Annotated[Path, typer.Option(help="Folder for recordings, guards and the table; a run resumes there.")],
    leave_out: Annotated[
        list[str] | None, typer.Option(help="Kind of prompts, wrapper or family of wrappers to leave out; repeatable.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="How much of the material: 1 to 8, 280 generations each.")] = 8,
    quantile: Annotated[
        float, typer.Option(help="Quantile of held-out harmless errors that the guard allows.")
    ] = 0.985,
    by_kind: Annotated[
        bool, typer.Option("--by-kind", help="Keep the limit for every kind of harmless prompts, not for plain ones.")
    ] = False,
    steps: Steps = 32,
    keep: Annotated[
        str,
        typer.Option(help="phi, to judge at shares of --steps; or looks, for whole answers of up to --steps tokens."),
    ] = "phi",
    window: Annotated[
        int | None, typer.Option(help="Latest tokens in the second mean of --keep looks; by default 64.")
    ] = None,
    longest: Annotated[
        int | None,
        typer.Option(help="Tokens; longer prompts are in the first round only, which saves most of the time."),
    ] = None,
    with_rest: Annotated[
        bool, typer.Option("--rest/--no-rest", help="Use the short prompts that are in no round as well.")
    ] = True,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Prompt file of your own harmless prompts, 20 or more: they set the limit, not the shipped ones."
        ),
    ] = None,
    also: Annotated[
        Path | None,
        typer.Option(
            help="Prompt file of your own harmless and harmful prompts, labelled: they are fitted on as well, and half "
            "of the harmless ones set the limit."
        ),
    ] = None,
    batch_size: BatchSize = 32,
    seed: Annotated[int, typer.Option(help="Seed of the material.")] = 0,
    resume: Resume = True,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Fit a probe guard on harmless and harmful requests in the same wrappers, and say what it is worth."""
    told = Output(quiet, as_json, as_csv)
    told.say(f"loading {model}")
    from demur.cli.results import share_table
    from demur.models import load
    from demur.prompts import read_prompts
    from demur.studies import harden as run
    from demur.studies.hardening import GUARD_FILE, LOOKS_FILE, STREAMING_FILE, check_choices, kept_as

    own = [] if calibration is None else read_prompts(calibration)
    further = [] if also is None else read_prompts(also)
    check_choices(rounds, leave_out or [], by_kind, own, further, quantile=quantile, longest=longest)
    kept_as(keep, window)
    with watched(quiet):
        loaded = load(model, device=device, dtype=dtype, revision=revision)
        found = run(
            loaded,
            out,
            sampler=loaded.default_sampler(steps=steps, seed=seed),
            longest=longest,
            with_rest=with_rest,
            calibration=own,
            also=further,
            keep=cast(Any, keep),
            window=window,
            rounds=rounds,
            leave_out=leave_out or [],
            quantile=quantile,
            by_kind=by_kind,
            batch_size=batch_size,
            seed=seed,
            resume=resume,
            say=told.say,
        )
    for attack, kinds in found.settings["resembling"].items():
        if kinds:
            told.say(f"resembles {attack}: {', '.join(kinds)}")
    rates = found.false_positives
    used = rates["sets_limit"].map({True: "sets the limit", False: "held out"})
    table = share_table("Harmless prompts by kind, with 95% intervals", rates.assign(prompts=used), TOLD, "flagged")
    told.numbers({"out": str(out), "model": model, **found.settings}, rates, [table])
    told.say(f"guard: {out / GUARD_FILE}")
    told.say(f"while it generates: {out / STREAMING_FILE} on {out / LOOKS_FILE}")
