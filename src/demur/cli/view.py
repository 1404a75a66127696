"""The command `demur view`: the step viewer.

In: the folder of a run. Out: one HTML file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from demur.cli.arguments import open_page
from demur.cli.options import AllowUnverified

DEPTH = 3
"""How deep runs are looked for."""


def view(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A study, or a recording with its anchors.safetensors.")],
    out: Annotated[Path | None, typer.Option(help="The file to write; by default RUN/viewer.html.")] = None,
    show_text: Annotated[bool, typer.Option(help="Let the file contain prompts and model text.")] = False,
    open_it: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = True,
    allow_unverified: AllowUnverified = False,
) -> None:
    """Play any generation of a run step by step: one HTML file that needs no network."""
    from demur.report import write_viewer

    require_run(run)
    path = write_viewer(run, out or run / "viewer.html", show_text=show_text)
    typer.echo(f"viewer: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if open_it:
        open_page(path)


def require_run(folder: Path) -> None:
    """Raise `InputError` for a folder that is no run, naming the runs inside it."""
    from demur.errors import InputError
    from demur.recording.folder import is_recording
    from demur.studies.study.results import is_study

    if not folder.is_dir() or is_study(folder) or is_recording(folder):
        return
    inside = sorted(path for path in _folders(folder) if is_study(path) or _is_shown(path))
    if inside:
        raise InputError(f"{folder}: is no run itself; give one of those inside: {', '.join(map(str, inside))}")


def _folders(folder: Path) -> Iterator[Path]:
    """The folders in a folder, down to `DEPTH`, but none inside a study: those are its parts."""
    from demur.studies.study.results import is_study

    places = [folder]
    for _ in range(DEPTH):
        places = [one for place in places for one in place.iterdir() if one.is_dir() and not is_study(place)]
        yield from places


def _is_shown(folder: Path) -> bool:
    from demur.recording.folder import is_recording

    return is_recording(folder) and (folder / "anchors.safetensors").is_file()
