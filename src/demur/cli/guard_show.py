"""The command `demur guard show`: what a guard was made from and is worth.

In: a guard's file. Out: its facts as a table or JSON. What they mean is said in `demur.guards`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from demur.cli.options import AllowUnverified, AsJson, Plugin
from demur.cli.output import Table, show


def guard_show(
    guard: Annotated[Path, typer.Argument(metavar="GUARD", help="A guard's file.")],
    as_json: AsJson = False,
    plugin: Plugin = None,
    allow_unverified: AllowUnverified = False,
) -> None:
    """Show what a guard was made from, its threshold and the false positives that it promises."""
    from demur.guards import load_guard

    facts = load_guard(guard).summary()
    if as_json:
        typer.echo(json.dumps({"file": str(guard), **facts}, indent=2, ensure_ascii=False))
        return
    show(
        Table(str(guard), ["", " "], [[name.replace("_", " "), _text(value)] for name, value in facts.items()], texts=2)
    )


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
