"""The row about interruption: a recording that is killed midway and resumed is the undisturbed one, bit for bit.

In: a bench, and how the model was loaded. Out: the verdict. Where a second copy of the model is cheap, a process of
its own is killed by SIGKILL; elsewhere the same generation is broken off in this process.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from demur.checks.bench import Bench
from demur.checks.result import Row
from demur.checks.texts import rows_of
from demur.recording import Recording
from demur.samplers import Sampler

WORDS = (1, 2, 3, 4, 5, 6)
BATCH = 2
SURVIVES = 1
"""Whole batches before the kill, which comes in the middle of the next one."""
CHEAP = 2e9
"""Most bytes of weights for which a second process loads the model again."""


class Killed(BaseException):
    """Stands for a kill in this process; nothing on the way catches it."""


def resume_row(bench: Bench, load: Mapping[str, Any] | None, seconds: float | None) -> Row:
    """Record with a kill and resume, and undisturbed, and compare all arrays.

    load : arguments of `demur.load` for a second process; None where the model cannot be loaded again.
    seconds : what loading took; None if it is not known.
    """
    rows = rows_of(bench.model, WORDS, shared=True)
    apart = load is not None and _is_cheap(bench, seconds)
    with tempfile.TemporaryDirectory(prefix="demur-check-") as folder:
        out = Path(folder) / "killed"
        told = _kill_process(bench, rows, out, load or {}) if apart else _break_off(bench, rows, out)
        if told:
            return Row("kill and resume", "a recording killed midway and resumed", outcome="failed", note=told)
        before = len(list((out / "shards").glob("*.parquet")))
        resumed = bench.record(rows, BATCH, out=out)
        whole = bench.record(rows, BATCH)
        unlike = differences(resumed, whole)
    how = "a process killed by SIGKILL" if apart else "a recording broken off in this process"
    measured = f"{how} after {before} of {len(rows) // BATCH} batches and resumed, against an undisturbed one"
    value = "arrays, tokens and texts equal bit for bit" if not unlike else f"differ: {', '.join(unlike)}"
    numbers = {"kept": before, "differences": len(unlike)}
    ok = not unlike and before == SURVIVES
    return Row("kill and resume", measured, value, "equal bit for bit", "ok" if ok else "failed", "", numbers)


def dying(sampler: Sampler, at_death: Callable[[], None] = lambda: None) -> Sampler:
    """A sampler that is the same in all but that it dies in the middle of a batch, after `SURVIVES` whole ones.

    at_death : called there; if it returns, `Killed` is raised.
    """
    mortal = copy.copy(sampler)
    begun = 0

    def steps(*args: Any, **options: Any) -> Any:
        nonlocal begun
        begun += 1
        for step in type(sampler).steps(sampler, *args, **options):
            if begun > SURVIVES and 2 * step.index >= sampler.step_count:
                at_death()
                raise Killed
            yield step

    vars(mortal)["steps"] = steps
    return mortal


def differences(one: Recording, other: Recording) -> list[str]:
    """What of two recordings is not the same to the last bit; times aside."""
    found = []
    if not np.array_equal(one.phi, other.phi):
        found.append("phi")
    tokens = [(one.steps_tokens(row), other.steps_tokens(row)) for row in range(len(one))]
    if not all(np.array_equal(a.predicted, b.predicted) for a, b in tokens):
        found.append("tokens")
    if not all(np.array_equal(a.is_committed, b.is_committed) for a, b in tokens):
        found.append("steps of the tokens")
    if not one.table.drop(columns="seconds").equals(other.table.drop(columns="seconds")):
        found.append("table")
    return found


def _is_cheap(bench: Bench, seconds: float | None) -> bool:
    size = sum(one.numel() * one.element_size() for one in bench.model.network.parameters())
    return seconds is not None and seconds < 0.2 * bench.plan.allowed and size < CHEAP


def _break_off(bench: Bench, rows: list[list[int]], out: Path) -> str:
    try:
        bench.record(rows, BATCH, out=out, sampler=dying(bench.sampler))
    except Killed:
        return ""
    return "the recording ran to its end instead"


def _kill_process(bench: Bench, rows: list[list[int]], out: Path, load: Mapping[str, Any]) -> str:
    """Run `demur.checks.killed`, which kills itself; what went wrong instead, if anything."""
    task = {
        "load": dict(load),
        "rows": rows,
        "sampler": type(bench.sampler).__name__,
        "arguments": bench.sampler.arguments,
        "layers": list(bench.layers),
        "out": str(out),
        "threads": torch.get_num_threads(),
    }
    command = [sys.executable, "-m", "demur.checks.killed"]
    done = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True, check=False)
    if done.returncode == -9:
        return ""
    last = (done.stderr.strip().splitlines() or ["no word"])[-1]
    return f"the process ended with {done.returncode} instead of being killed: {last}"
