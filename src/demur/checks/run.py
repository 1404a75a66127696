"""`check`: run every row on one model and gather what they say.

In: a model, or what `load` takes. Out: a `Check`. A row that raises is a row that failed; the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from demur.checks.batches import batch_row, early_row, window_row
from demur.checks.bench import SHARED, UNSHARED, Bench
from demur.checks.canvases import canvas_row
from demur.checks.cost import memory_row, speed_row
from demur.checks.official import official_row
from demur.checks.plan import plan_of
from demur.checks.result import Check, Row
from demur.checks.resume import resume_row
from demur.checks.roundtrip import prompt_row
from demur.checks.truth import generate_row, states_row
from demur.checks.weights import files_row, weights_row
from demur.errors import InputError
from demur.models import Model, load
from demur.models.parallel import require_one_process
from demur.samplers.step import require_at_least

OVERTIME = 1.5
"""Rows that do not begin before this many times the minutes given are left out."""
FILES_SHARE = 0.1
"""Most of the time that is spent on reading the weights again."""

Rows = list[tuple[str, Callable[[], Row]]]


def check(
    model: Model | str | Path | torch.nn.Module,
    *,
    quick: bool = False,
    minutes: float = 1.0,
    say: Callable[[Row], None] = lambda row: None,
    **options: Any,
) -> Check:
    """Prove that demur measures rightly on a model, as it is loaded, on its device and in its dtype.

    model : a `Model`, or what `demur.load` takes, with `options` for it, such as dtype="bfloat16" or tokenizer=….
    quick : prompts, batches, `generate` and states only, on few rows: what a study runs first.
    minutes : about how long it may take; sizes follow from a timing of the network. A model so slow that the
        smallest sizes take longer takes longer.
    say : called with each row as it is done.

    Raises `InputError` where the model cannot be loaded. What the model then fails in is in the result's rows.
    """
    require_at_least("minutes", minutes, 0.01)
    seconds = None
    if not isinstance(model, Model):
        begun = time.perf_counter()
        named = isinstance(model, str | Path)
        load_again: Mapping[str, Any] | None = {"name_or_path": str(model), **options} if named else None
        model = load(model, **options)
        seconds = time.perf_counter() - begun if named else None
    elif options:
        raise InputError(f"{', '.join(options)}: are options of loading, but the model is loaded already")
    else:
        load_again = None
    require_one_process(model, "demur check")
    started = time.perf_counter()
    bench = Bench(model, plan_of(model, minutes, quick=quick))
    rows = (
        _quick_rows(bench) if quick else _all_rows(bench, load_again, seconds, bool(options.get("trust_remote_code")))
    )
    found = []
    for name, run in rows:
        found.append(_run(name, run, out_of_time=time.perf_counter() - started > OVERTIME * bench.plan.allowed))
        say(found[-1])
    return Check(
        model=model.name,
        fingerprint=model.fingerprint,
        family=model.family,
        device=str(model.device),
        dtype=str(next(model.network.parameters()).dtype).removeprefix("torch."),
        versions={name: version(name) for name in ("demur", "torch", "transformers")},
        quick=quick,
        seconds=time.perf_counter() - started,
        rows=tuple(found),
    )


def _quick_rows(bench: Bench) -> Rows:
    rows: Rows = [
        ("prompt", lambda: prompt_row(bench.model)),
        ("batch, shared", lambda: batch_row(bench, SHARED)),
        ("batch, beyond the window", lambda: window_row(bench)),
    ]
    return [*rows, *_truth_rows(bench)]


def _all_rows(bench: Bench, load_again: Mapping[str, Any] | None, seconds: float | None, trusted: bool) -> Rows:
    return [
        ("weights", lambda: weights_row(bench.model)),
        ("weights and files", lambda: files_row(bench.model, FILES_SHARE * bench.plan.allowed)),
        ("prompt", lambda: prompt_row(bench.model)),
        ("batch, shared", lambda: batch_row(bench, SHARED)),
        ("batch, unshared", lambda: batch_row(bench, UNSHARED)),
        ("batch, rows that end", lambda: early_row(bench)),
        ("batch, beyond the window", lambda: window_row(bench)),
        *_truth_rows(bench),
        ("official code", lambda: official_row(bench, allowed=trusted)),
        ("kill and resume", lambda: resume_row(bench, load_again, seconds)),
        ("memory", lambda: memory_row(bench)),
        ("speed", lambda: speed_row(bench)),
    ]


def _truth_rows(bench: Bench) -> Rows:
    if bench.model.traits.left_to_right:
        return [("generate", lambda: generate_row(bench)), ("states", lambda: states_row(bench))]
    return [("states", lambda: canvas_row(bench))]


def _run(name: str, run: Callable[[], Row], *, out_of_time: bool) -> Row:
    if out_of_time:
        return Row(name, "", outcome="not run", note="the time is up; give more minutes")
    try:
        return run()
    except InputError as error:
        return Row(name, "", outcome="failed", note=f"demur refuses: {error}")
    except Exception as error:  # a network can fail anywhere, and that is what is asked here
        reason = (str(error).strip().splitlines() or [""])[0]
        return Row(name, "", outcome="failed", note=f"{type(error).__name__}: {reason}")
