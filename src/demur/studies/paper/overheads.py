"""What defenses cost beside the generation they defend: both timed in one run, on one machine, in the same batches.

In: a subject, its model and sampler, and the defenses. Out: a table with a row a defense, kept in a file with what it
was measured on. Seconds of another run or machine are never divided by these.
"""

from __future__ import annotations

import hashlib
import json
import platform
import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd

from demur.defenses import AnyOf, Defense
from demur.errors import InputError
from demur.files.tables import read_table, write_table
from demur.models import Model
from demur.prompts import Prompt
from demur.recording import Recording, record
from demur.samplers import Sampler
from demur.studies.paper.subject import Subject

TIMED = 16
"""Prompts of each test set that are timed."""
COLUMNS = ["defense", "seconds", "generation_seconds", "generations", "batch_size", "device", "run", "made_of"]


def overhead_table(
    subject: Subject, model: Model, sampler: Sampler, defenses: Sequence[Defense], sets: Sequence[str], batch_size: int
) -> pd.DataFrame:
    """Seconds of each defense and of the generation beside it, from the file of a run of the very same make, or anew.

    Columns defense, seconds, generation_seconds, generations, batch_size, device, run (equal where rows were measured
    together) and made_of. Defenses of several are the sum of their parts.
    """
    single = [one for one in defenses if not isinstance(one, AnyOf)]
    device = f"{model.device}, {platform.machine()}"
    made: dict[str, Any] = {"defenses": [one.describe() for one in single], "model": model.fingerprint}
    made |= {"sampler": sampler.describe(), "batch": batch_size, "device": device, "host": platform.node()}
    made_of = hashlib.sha256(json.dumps(made, sort_keys=True, default=str).encode()).hexdigest()
    path = subject.path / "defenses" / "overheads.parquet"
    with suppress(InputError):  # missing or damaged: measured again
        kept = read_table(path, COLUMNS).table
        if set(kept["made_of"]) == {made_of}:
            return kept
    seconds, took, count = _timed(model, sampler, single, _prompts(subject, sets), subject.anchors.layers, batch_size)
    common = {"generation_seconds": took, "generations": count, "batch_size": batch_size, "device": device}
    common |= {"run": secrets.token_hex(4), "made_of": made_of}
    found = pd.DataFrame([{"defense": name, "seconds": one, **common} for name, one in seconds.items()])[COLUMNS]
    write_table(path, found)
    return found


def overhead_of(defense: Defense, found: pd.DataFrame) -> float:
    """Seconds that a defense adds, over those of the generation that it was timed beside."""
    parts = [one.name for one in defense.defenses] if isinstance(defense, AnyOf) else [defense.name]
    rows = found.set_index("defense").loc[parts]
    return float(rows["seconds"].sum() / rows["generation_seconds"].iloc[0])


def _prompts(subject: Subject, sets: Sequence[str]) -> list[Prompt]:
    """Prompts of every test set, evenly spaced."""
    found = []
    for name in sets:
        asked = subject.recordings[name].table["prompt"].dropna().tolist()
        places = np.unique(np.linspace(0, len(asked) - 1, min(TIMED, len(asked))).round().astype(int))
        found += [Prompt(f"{name}-{place}", asked[place]) for place in places]
    return found


def _timed(
    model: Model,
    sampler: Sampler,
    defenses: Sequence[Defense],
    prompts: Sequence[Prompt],
    layers: Sequence[int],
    batch_size: int,
) -> tuple[dict[str, float], float, int]:
    """Seconds by defense and those of the generation; both run once before, on one batch, without being counted."""

    def made(chosen: Sequence[Prompt]) -> Recording:
        return record(model, chosen, sampler, layers=layers, batch_size=batch_size, progress=False)

    def spent(recording: Recording) -> dict[str, float]:
        table = recording.table
        asked, texts = table["prompt"].tolist(), table["text"].tolist()
        return {one.name: float(one(asked, texts, recording).seconds.sum()) for one in defenses}

    spent(made(prompts[:batch_size]))
    recording = made(prompts)
    return spent(recording), float(recording.table["seconds"].sum()), len(recording)
