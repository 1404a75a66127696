"""The command `demur view`: the step viewer.

In: the folder of a run. Out: one HTML file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli.arguments import open_page
from demur.cli.options import AllowUnverified


def view(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A study, or a recording with its anchors.safetensors.")],
    out: Annotated[Path | None, typer.Option(help="The file to write; by default RUN/viewer.html.")] = None,
    show_text: Annotated[bool, typer.Option(help="Let the file contain prompts and model text.")] = False,
    open_it: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = True,
    allow_unverified: AllowUnverified = False,
) -> None:
    """Play any generation of a run step by step: one HTML file that needs no network."""
    from demur.report import write_viewer

    path = write_viewer(run, out or run / "viewer.html", show_text=show_text)
    typer.echo(f"viewer: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if open_it:
        open_page(path)
