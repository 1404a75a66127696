"""The commands `demur anchors` and `demur signal`.

In: recordings. Out: a file of anchors, or of signals.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli.options import AllowUnverified, Out, Quiet
from demur.cli.output import Output


def anchors(
    harmless: Annotated[Path, typer.Argument(metavar="HARMLESS_DIR", help="Recording of harmless prompts.")],
    harmful: Annotated[Path, typer.Argument(metavar="HARMFUL_DIR", help="Recording of harmful prompts.")],
    out: Out = Path("anchors.safetensors"),
    quiet: Quiet = False,
    allow_unverified: AllowUnverified = False,
) -> None:
    """Fit anchors: the mean states of answered harmless and of refused harmful prompts."""
    told = Output(quiet)
    import demur

    fitted = demur.Anchors.fit(demur.Recording(harmless), demur.Recording(harmful))
    fitted.save(out)
    for side, count in fitted.counts.items():
        told.say(f"{side}: {count.seen} prompts, {count.refused} refused, {count.kept} kept")
    told.say(f"anchors: {out} ({len(fitted.harmless)} steps, layers {', '.join(map(str, fitted.layers))})")


def signal(
    recording: Annotated[Path, typer.Argument(metavar="RECORDING_DIR", help="A recording.")],
    anchors: Annotated[Path, typer.Option(help="Anchors of the same model, sampler and layer.")],
    out: Out = Path("signal.parquet"),
    quiet: Quiet = False,
    allow_unverified: AllowUnverified = False,
) -> None:
    """The signal of every generation of a recording."""
    told = Output(quiet)
    import demur
    from demur.recording import write_signal

    sigma = write_signal(demur.Recording(recording), demur.Anchors.load(anchors), out)
    told.say(f"{out}: {sigma.shape[0]} signals of {sigma.shape[1]} steps")
