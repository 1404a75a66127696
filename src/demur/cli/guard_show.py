"""The commands `demur guard show` and `demur guard push`: what a guard was made from and is worth, and sharing it.

In: a guard's file, folder or name on the Hub. Out: its facts as a table or JSON; a repository of the Hub with a card.
What the facts mean is said in `demur.guards`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demur.cli.options import GUARD, AllowUnverified, AsJson, Plugin
from demur.cli.output import Table, show

if TYPE_CHECKING:
    from demur.sharing import Shareable


def guard_push(
    guard: Annotated[str, typer.Argument(metavar="GUARD", help="A guard's file.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="owner/name on the Hub; or a folder, with --folder.")],
    source: Annotated[
        Path | None, typer.Option(help="Of a streaming guard: the file of the guard or the anchors that it watches.")
    ] = None,
    measured: Annotated[
        Path | None, typer.Option(help="Table of false positives by kind for the card, as `demur harden` writes it.")
    ] = None,
    license: Annotated[str | None, typer.Option(help="License identifier for the card, such as apache-2.0.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    folder: Annotated[bool, typer.Option("--folder", help="Write a folder to be shared, and push nothing.")] = False,
    plugin: Plugin = None,
    allow_unverified: AllowUnverified = False,
) -> None:
    """Share a guard on the Hugging Face Hub, with a card; the token is the one of `hf auth login`, or HF_TOKEN."""
    from demur.guards import load_guard

    fitted, watched = load_guard(guard), None if source is None else _source(source)
    if folder:
        fitted.save_pretrained(name, source=watched, measured=measured, license=license)
        typer.echo(f"{name}: written")
        return
    options = {"private": True} if private else {}
    typer.echo(fitted.push_to_hub(name, source=watched, measured=measured, license=license, **options))


def _source(path: Path) -> Shareable:
    """What a streaming guard watches: anchors, or a guard."""
    from demur.files.arrays import read_arrays
    from demur.guards import GUARDS, load_guard
    from demur.signal import Anchors

    _, header = read_arrays(path, "anchors", *GUARDS.names())
    return Anchors.load(path) if header["kind"] == "anchors" else load_guard(path)


def guard_show(
    guard: Annotated[str, typer.Argument(metavar="GUARD", help=GUARD)],
    as_json: AsJson = False,
    plugin: Plugin = None,
    allow_unverified: AllowUnverified = False,
) -> None:
    """Show what a guard was made from, its threshold and the false positives that it promises."""
    from demur.guards import load_guard
    from demur.sharing import is_hub_name, open_shared

    shared = open_shared(guard) if Path(guard).is_dir() or is_hub_name(guard) else None
    facts = load_guard(shared.folder if shared else guard).summary()
    if shared:
        facts |= {"commit": shared.commit or None, "files": list(shared.files)}
        facts |= {"measured_false_positives": {row["kind"]: _counted(row) for row in shared.measured} or None}
    if as_json:
        typer.echo(json.dumps({"file": guard, **facts}, indent=2, ensure_ascii=False))
        return
    show(Table(guard, ["", " "], [[name.replace("_", " "), _text(value)] for name, value in facts.items()], texts=2))


def _counted(row: dict[str, Any]) -> dict[str, Any]:
    return {"flagged": row["hits"], "of": row["count"], "interval": [row["low"], row["high"]]}


def _text(value: Any) -> str:
    if value is None:
        return "not known"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    if isinstance(value, list):
        return " to ".join(f"{one:.2%}" for one in value) if _is_interval(value) else ", ".join(map(_text, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_interval(value: list[Any]) -> bool:
    return len(value) == 2 and all(isinstance(one, float) and 0 <= one <= 1 for one in value)
