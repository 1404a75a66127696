"""The commands that need no model, each over small made-up inputs, and what they leave.

In: an empty folder for the inputs. Out: `Job`s. Each writes into a folder of its own, from new inputs or from old ones
that give other content, so that a test can tell what is there after a fault.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd

import demur.report.compare.page as comparison_page
import demur.report.parts.embed as embedding
import made_up
from demur import Anchors, Recording
from demur.cli import main
from demur.errors import InputError
from demur.files.staging import found
from demur.files.tables import write_table
from demur.guards import StreamingGuard
from demur.recording import read_signal
from demur.recording.signal_file import COLUMNS, HEADER
from demur.report.parts.linked import END, RUN, write_page
from demur.studies.hardening import GUARD_FILE, LOOKS_FILE, SETTINGS_FILE, STREAMING_FILE, TABLE_FILE, Hardened

STEPS = 6
WORDS = ["<end>", "<mask>", *(f"w{n}" for n in range(20))]


@dataclass(frozen=True)
class Ran:
    """What a command left on the screen."""

    code: int
    stderr: str

    @property
    def is_one_line(self) -> bool:
        """Whether all that it said is one line that a terminal shows as it is."""
        line = self.stderr.removesuffix("\n")
        return line.startswith("demur: ") and line.isprintable() and "Traceback" not in line


@dataclass(frozen=True)
class Job:
    """A command: `run(folder, variant)` writes `files` into a folder, from the inputs "old" or "new".

    together : those of the files that are replaced all at once. shared : those that both variants write alike.
    """

    name: str
    run: Callable[[Path, str], Ran]
    files: tuple[str, ...]
    together: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()

    def content(self, folder: Path) -> dict[str, bytes | None]:
        """The bytes of every file, wherever a reader finds them; None where there is none."""
        paths = {name: found(folder, name) for name in self.files}
        return {name: path.read_bytes() if path.exists() else None for name, path in paths.items()}


def demur(*arguments: object) -> Ran:
    """Run the command line in this process."""
    err = io.StringIO()
    argv = ["demur", *map(str, arguments)]
    with patch.object(sys, "argv", argv), redirect_stdout(io.StringIO()), redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            return Ran(int(stop.code or 0), err.getvalue())
    return Ran(0, err.getvalue())


def every_job(inputs: Path) -> list[Job]:
    """All jobs, their inputs made below `inputs`."""
    recordings = {
        name: made_up.write_recording(inputs / name, 30 + 3 * seed, steps=STEPS, response=8, words=WORDS, seed=seed)
        for seed, name in enumerate(("one", "two"))
    }
    anchors = inputs / "anchors.safetensors"
    Anchors.fit(recordings["one"], recordings["two"]).save(anchors)
    signals = {name: _signals(inputs / f"{name}.parquet", recordings["one"], seed) for seed, name in enumerate("abcd")}
    guard = inputs / "guard.safetensors"
    fit = ["guard", "fit", signals["a"], "--quantile", 0.9, "--calibration", signals["b"]]
    assert demur(*fit, "--out", guard) == Ran(0, "")
    made_up.make_study(inputs / "study", WORDS, steps=STEPS, response=8)
    one, two = inputs / "one", inputs / "two"
    runs = [inputs / name / "run" for name in ("left", "right")]
    for seed, folder in enumerate(runs):
        made = made_up.write_recording(folder, 12, steps=STEPS, response=8, words=WORDS, seed=seed)
        _anchors(made).save(folder / "anchors.safetensors")
    score = ["guard", "score", guard]
    fit = ["guard", "fit", signals["a"], "--streaming", 0.2, "--calibration"]
    view = ["view", inputs / "study", "--no-open"]
    limit = {"old": 0.5, "new": 1.5}
    saves = {name: made_up.write_study(inputs / f"saved-{name}", recordings, limit[name]) for name in limit}
    tables = tuple(sorted(path.name for path in (inputs / "saved-old").iterdir()))
    pair = ("comparison.json", "comparison.parquet")
    pages = ("comparison.html", "comparison.png", "comparison.svg")
    return [
        _job("anchors", "a.safetensors", ["anchors", two, two], ["anchors", one, two]),
        _job("signal", "s.parquet", ["signal", two, "--anchors", anchors], ["signal", one, "--anchors", anchors]),
        _job("guard fit", "g.safetensors", [*fit, signals["b"]], [*fit, signals["c"]]),
        _job("guard score", "e.parquet", [*score, signals["c"]], [*score, signals["d"]]),
        _beside_a_report(_job("view", "viewer.html", view, [*view, "--show-text"])),
        _drawn_fast(_job("compare", "", ["compare", *reversed(runs)], ["compare", *runs], (*pair, *pages), pair)),
        Job("save a study", partial(_save, saves), tables, tables),
        _hardening(signals["a"], signals["b"]),
    ]  # fmt: skip


def _job(
    name: str,
    file: str,
    old: list[object],
    new: list[object],
    files: tuple[str, ...] = (),
    together: tuple[str, ...] = (),
) -> Job:
    variants = {"old": old, "new": new}
    return Job(
        name,
        lambda folder, variant: demur(*variants[variant], "--out", folder / file),
        files or (file,),
        together,
    )


def _beside_a_report(job: Job) -> Job:
    """The job in a folder that holds another page of its run, which lists the new one."""

    def run(folder: Path, variant: str) -> Ran:
        if not (folder / "report.html").exists():
            write_page(folder / "report.html", f'<meta name="demur-page" content="report">{RUN}{END}')
        return job.run(folder, variant)

    return replace(job, run=run, files=(*job.files, "report.html"), shared=("report.html",))


def _drawn_fast(job: Job) -> Job:
    """The job with figures that are their data only: drawing writes no file, and takes most of the time."""

    def render(figure: Any, kind: str) -> bytes:
        return f"<svg>{kind} {figure.table.to_json()}</svg>".encode()

    def run(folder: Path, variant: str) -> Ran:
        drawn = patch.multiple(comparison_page, render=render, comparison_figure=lambda comparison: comparison)
        with drawn, patch.object(embedding, "render", render):
            return job.run(folder, variant)

    return replace(job, run=run)


def _anchors(recording: Recording) -> Anchors:
    harmless, harmful = np.random.default_rng(0).random((2, STEPS, 1, 2)).astype(np.float32)
    return Anchors(harmless, harmful, recording.layers, provenance=recording.provenance)


def _signals(path: Path, recording: Recording, seed: int) -> Path:
    values = np.random.default_rng(seed).random((len(recording), STEPS)).astype(np.float32)
    header = json.dumps(_anchors(recording).describe(recording.provenance, recording.layers[0]).to_dict())
    write_table(path, recording.table[COLUMNS].assign(signal=list(values)), {HEADER: header})
    return path


def _hardening(*signals: Path) -> Job:
    """What `demur harden` saves in the end, with guards that fit in no time in the places of the probes."""
    values = [np.asarray(read_signal(path)[1]) for path in signals]
    made: dict[str, Any] = {}
    for variant, alpha in (("old", 0.1), ("new", 0.2)):
        guard = StreamingGuard(alpha).fit(values[0], calibration=values[1])
        made[variant] = Hardened(guard, guard, guard, pd.DataFrame({"alpha": [alpha]}), {"alpha": alpha})  # type: ignore[arg-type]
    files = (GUARD_FILE, LOOKS_FILE, STREAMING_FILE, TABLE_FILE, SETTINGS_FILE)
    return Job("save a hardening", partial(_save, made), files, files)


def _save(studies: dict[str, Any], folder: Path, variant: str) -> Ran:
    try:
        studies[variant].save(folder)
    except InputError as error:
        return Ran(2, f"demur: {' '.join(str(error).split())}\n")
    return Ran(0, "")
