"""The commands `demur guard fit` and `demur guard score`.

In: files of signals, or folders of recordings. Out: a guard's file, or a table of scores. What a guard learns and what
its errors mean is in `demur.guards`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demur.cli.options import GUARD, AllowUnverified, AsCsv, AsJson, Out, Plugin, Quiet
from demur.cli.output import Output
from demur.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from demur.guards import LinearGuard
    from demur.guards.base import Guard
    from demur.signal import Signal

TITLE = "Flagged by group, with 95% intervals"


def guard_fit(
    harmless: Annotated[
        Path, typer.Argument(metavar="HARMLESS", help="Signals to train on; with --harmful a recording.")
    ],
    calibration: Annotated[Path, typer.Option(help="The same of other harmless prompts, to set the limit by.")],
    out: Out = Path("guard.safetensors"),
    quantile: Annotated[
        float | None, typer.Option(help="Quantile of the calibration errors that is allowed; by default 0.99.")
    ] = None,
    harmful: Annotated[
        Path | None, typer.Option(help="Recording of plain harmful prompts: fits a direction guard on recordings.")
    ] = None,
    streaming: Annotated[
        float | None, typer.Option(metavar="ALPHA", help="Fit a streaming guard that stops at most this share.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the SRI guard's draws; the others draw nothing.")] = 0,
    plugin: Plugin = None,
    quiet: Quiet = False,
    allow_unverified: AllowUnverified = False,
) -> None:
    """Fit and calibrate a guard: the SRI guard, a direction guard or a streaming guard on the signal."""
    told = Output(quiet)
    import demur
    from demur.guards import states_of
    from demur.recording import read_signal

    if harmful is not None and streaming is not None:
        raise InputError("--harmful and --streaming fit different guards; give one of them")
    if quantile is not None and streaming is not None:
        raise InputError("--quantile is not of a streaming guard, whose limit follows from its ALPHA; leave it out")
    quantile = 0.99 if quantile is None else quantile
    guard: Guard
    if harmful is not None:
        train, held_out, bad = (states_of(demur.Recording(path)) for path in (harmless, calibration, harmful))
        guard = demur.DirectionGuard(quantile).fit(train, harmful=bad, calibration=held_out)
    else:
        train, held_out = read_signal(harmless)[1], read_signal(calibration)[1]
        one = demur.SRIGuard(quantile, random_state=seed) if streaming is None else demur.StreamingGuard(streaming)
        guard = one.fit(train, calibration=held_out)
    guard.save(out)
    made = type(guard).__name__
    told.say(f"{out}: {made}, limit {guard.threshold_:.4g}, {len(train)} to train and {len(held_out)} to calibrate")


def guard_score(
    guard: Annotated[str, typer.Argument(metavar="GUARD", help=GUARD)],
    generations: Annotated[
        Path, typer.Argument(metavar="GENERATIONS", help="Signals; for a guard that reads states a recording.")
    ],
    out: Out = Path("scores.parquet"),
    source: Annotated[
        str | None, typer.Option(help="The direction guard that a streaming guard watches, for recordings.")
    ] = None,
    plugin: Plugin = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    allow_unverified: AllowUnverified = False,
) -> None:
    """Score generations: the error of each, whether it is flagged and, by a streaming guard, the step it stops at."""
    told = Output(quiet, as_json, as_csv)
    import demur
    from demur.cli.results import flagged_numbers, share_table
    from demur.files.tables import write_table
    from demur.guards import LinearGuard, StreamingGuard, load_guard
    from demur.recording.signal_file import COLUMNS

    fitted = load_guard(guard)
    if source is not None and not isinstance(fitted, StreamingGuard):
        raise InputError(f"--source is for a streaming guard, and this is a {type(fitted).__name__}; leave it out")
    direction = fitted if isinstance(fitted, LinearGuard) else None
    if source is not None:
        direction = _watched(source)
    if direction is not None:
        recording = demur.Recording(generations)
        table, values = recording.table[COLUMNS], direction.states(recording)
        values = values if direction is fitted else direction.place_errors(values)
    else:
        table, values = _signal(fitted, generations)
    errors = fitted.errors(values)
    _watch_drift(fitted, table, errors)
    table = table.assign(error=errors, flagged=fitted.predict(values) == -1)
    if isinstance(fitted, StreamingGuard):
        stops = fitted.stops(values)
        table = table.assign(stopped_at=stops if direction is None else direction.steps_of(stops, recording.steps))
    write_table(out, table)
    found = flagged_numbers(table)
    told.numbers({"out": str(out), "guard": guard}, found, [share_table(TITLE, found, ["group"], "flagged")])
    told.say(f"{out}: {int(table['flagged'].sum())} of {len(table)} flagged")


def _watch_drift(fitted: Guard, table: pd.DataFrame, errors: NDArray[Any]) -> None:
    """Warn where the errors of prompts that are not known to be harmful do not look like the calibration's."""
    from demur.guards import DriftWatch

    harmless = (table["label"] != "harmful").fillna(True) & table["attack"].isna()
    if getattr(fitted, "calibration_errors_", None) is None:
        return
    watch = DriftWatch(fitted, window=max(20, len(table)))  # all of them at once
    watch.add(errors[harmless.to_numpy(dtype=bool)])
    watch.finish()


def _watched(path: str) -> LinearGuard:
    """The guard whose place errors a streaming guard watches."""
    from demur.guards import LinearGuard, load_guard

    found = load_guard(path)
    if not isinstance(found, LinearGuard):
        raise InputError(f"{path}: is a {type(found).__name__}, which gives no errors place by place to watch")
    return found


def _signal(guard: Guard, path: Path) -> tuple[pd.DataFrame, Signal]:
    """The table and the signals of a file, for a guard that judges signals."""
    from demur.guards import TrajectoryGuard
    from demur.recording import read_signal

    if isinstance(guard, TrajectoryGuard):
        raise InputError("a TrajectoryGuard judges features, which have no file; score them from Python")
    if path.is_dir():
        raise InputError(
            f"{path}: is a recording, and this guard judges signals: give the file that `demur signal` makes of it, or "
            f"the direction that the guard watches as --source"
        )
    return read_signal(path)
