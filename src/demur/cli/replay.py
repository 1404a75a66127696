"""The command `demur replay`.

In: the log of a server, and a recording of some of its prompts. Out: how many verdicts agree, and those that differ;
exit code 1 where any does.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from demur.cli.options import AllowUnverified, AsCsv, AsJson, Plugin, Quiet
from demur.cli.output import Output, Table
from demur.errors import InputError


def replay(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="The log of demur serve.")],
    recording: Annotated[Path, typer.Argument(metavar="RECORDING", help="A recording that holds some of the prompts.")],
    guard: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR|FILE|NAME", help="The guards, as for serve; by default those that the log names."),
    ] = None,
    plugin: Plugin = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    allow_unverified: AllowUnverified = False,
) -> None:
    """Replay the verdicts of a server's log on a recording, and say where they differ."""
    told = Output(quiet, as_json, as_csv)
    try:
        import pandas as pd

        import demur
        from demur.serve import load_guards
        from demur.serve.replay import replay as replayed
        from demur.serve.verdict_log import read_log
    except ModuleNotFoundError as error:
        raise InputError(f"demur replay needs one more package, {error.name}: pip install 'demur[serve]'") from error
    entries = read_log(log)
    places = guard or [
        file for entry in entries if "started" in entry for one in entry["guards"] for file in one["files"]
    ]
    if not places:
        raise InputError(f"{log}: names no guard files; give them as --guard")
    found = replayed(entries, demur.Recording(recording), load_guards(list(dict.fromkeys(places))))
    if not found.compared:
        raise InputError(f"{recording}: holds no prompt of {log} that can be compared; give a recording that does")
    rows = [asdict(one) for one in found.differences]
    facts = {"compared": found.compared, "differ": len(rows), "drawn": found.drawn, "unknown": found.unknown}
    columns = ["line", "prompt", "guard", "logged_stop", "recorded_stop", "logged_score", "recorded_score"]
    cells = [[_text(row[name]) for name in columns] for row in rows]
    table = Table("Verdicts that differ", [name.replace("_", " ") for name in columns], cells, texts=3)
    told.numbers({**facts, "largest": found.largest}, pd.DataFrame(rows, columns=columns), [table])
    told.say(
        f"{found.compared} verdicts compared, {len(rows)} differ (scores at most {found.largest:.2g} apart); passed "
        f"over: {found.drawn} drawn at another temperature, {found.unknown} not in the recording"
    )
    if rows:
        raise typer.Exit(1)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
