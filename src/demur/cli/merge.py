"""The command `demur merge`.

In: the folders of all parts of one run. Out: the folder of the whole recording.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli.options import Out, Quiet, Resume
from demur.cli.output import Output


def merge(
    parts: Annotated[list[Path], typer.Argument(metavar="PART...", help="Folders that record --part I/N wrote.")],
    out: Out,
    resume: Resume = True,
    quiet: Quiet = False,
) -> None:
    """Make one recording of all the parts of a run."""
    told = Output(quiet)
    from demur.recording import merge as merged

    recording = merged(parts, out, resume=resume)
    told.say(f"{out}: {len(recording)} prompts of {len(parts)} parts")
