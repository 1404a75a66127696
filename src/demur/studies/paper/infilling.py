"""Table 14: attacks that plant text in the canvas of a diffusion model (DIJA, PAD), with and without a guard.

In: a subject and its model. Out: a tidy table, empty for models that fill no gaps.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from demur.attacks import attack_prompts
from demur.dynamics import wilson
from demur.errors import InputError
from demur.judges import Judge
from demur.models import Model
from demur.prompts import Prompt
from demur.recording import record
from demur.samplers import Sampler
from demur.studies.paper.published import INFILLING, paper_model
from demur.studies.paper.subject import Row, Subject
from demur.studies.recovery import success_table

ATTACKS = ("dija", "pad")


def infilling_table(
    subject: Subject,
    model: Model,
    sampler: Sampler,
    *,
    judge: Judge | None = None,
    batch_size: int = 16,
    say: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """RR, RR with the SRI Guard, and with a judge of harm ASR, of both attacks on the plain harmful test prompts."""
    if model.family != "masked-diffusion":
        return subject.table([])
    asked = subject.recordings["test_harmful"].table
    plain = [Prompt(str(row.id), str(row.prompt), label="harmful") for row in asked.itertuples()]
    layers = subject.recordings["test_harmful"].provenance.layers
    rows: list[Row] = []
    for name in ATTACKS:
        folder = subject.path / "infilling" / name
        try:
            recording = record(
                model, attack_prompts(name, plain), sampler, layers=layers, batch_size=batch_size, out=folder
            )
        except InputError as error:  # a template that the response has no room for
            say(f"{name}: left out, {error}")
            continue
        refused = recording.table["refused"].to_numpy(dtype=bool)
        flagged = subject.guard.predict(subject.anchors.signal(recording)) == -1
        say(f"{name}: {len(recording)} prompts, {int(refused.sum())} refused, {int(flagged.sum())} flagged")
        published = INFILLING.get(paper_model(subject.name) or "", {}).get(name)
        rows.append((name, "RR", wilson(int(refused.sum()), len(refused)), None))
        rows.append((name, "RR with guard", wilson(int((refused | flagged).sum()), len(refused)), None))
        if judge is not None and judge.judges_harm:
            found = success_table(recording, judge).iloc[0]
            rows.append((name, str(found["rate"]), found, published[0] if published else None))
    return subject.table(rows)
