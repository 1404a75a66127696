"""Table 14: attacks that plant text in the canvas of a diffusion model (DIJA, PAD), with and without defenses.

In: a subject and its model. Out: a tidy table, empty for models that fill no gaps. The templates are as large as the
response has room for. The defenses are the SRI Guard and DiffuGuard, which samples in its own way.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from demur.attacks.infilling import CONNECTORS, GAP, STEPS, dija, pad
from demur.dynamics import wilson
from demur.errors import InputError
from demur.judges import Judge
from demur.models import Model
from demur.prompts import Prompt
from demur.recording import Recording, record
from demur.recording.engine import Engine
from demur.recording.forcing import forced_of
from demur.samplers import DiffuGuard, MaskedDiffusion, Sampler
from demur.studies.paper.material import OF_DIFFUSION, PAPER_TABLES, PaperMaterial
from demur.studies.paper.published import INFILLING, paper_model
from demur.studies.paper.subject import COLUMNS, Row, Subject
from demur.studies.study.recovery import success_table

ATTACKS = {"dija": (dija, STEPS), "pad": (pad, len(CONNECTORS))}
"""The attacks with the steps of their templates, all of them where the response has room."""
GAPS = range(GAP, 3, -1)


@PAPER_TABLES.table(
    "table_14_infilling",
    columns=COLUMNS,
    title="Table 14: attacks on the canvas",
    needs=OF_DIFFUSION,
    place=14,
)
def infilling(material: PaperMaterial) -> pd.DataFrame:
    """Table 14 of a model."""
    return infilling_table(
        material.subject,
        material.model,
        material.sampler,
        judge=material.judge,
        batch_size=material.batch_size,
        engine=material.engine,
        say=material.say,
    )


def infilling_table(
    subject: Subject,
    model: Model,
    sampler: Sampler,
    *,
    judge: Judge | None = None,
    batch_size: int = 16,
    engine: Engine | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """RR, RR with each defense, and with a judge of harm ASR, of both attacks on the plain harmful test prompts."""
    if model.traits.forces != "anywhere":
        return subject.table([])
    asked = subject.recordings["test_harmful"].table
    plain = [Prompt(str(row.id), str(row.prompt), label="harmful") for row in asked.itertuples()]
    layers = subject.recordings["test_harmful"].provenance.layers
    rows: list[Row] = []
    notes: list[str] = []
    for name, (attack, most) in ATTACKS.items():
        shape = template_shape(attack, most, model, sampler)
        if shape is None:
            say(f"{name}: left out, a response of {sampler.response_length} positions has no room for its template")
            continue
        attacked = [attack(prompt, *shape) for prompt in plain]
        folder = subject.path / "infilling" / name
        recording = record(model, attacked, sampler, layers=layers, batch_size=batch_size, out=folder, engine=engine)
        refused = recording.table["refused"].to_numpy(dtype=bool)
        flagged = subject.guard.predict(subject.anchors.signal(recording)) == -1
        size = f"{shape[0]} of {most} steps of {shape[1]} positions"
        counts = f"{int(refused.sum())} refused, {int(flagged.sum())} flagged"
        say(f"{name}, {size}: {len(recording)} prompts, {counts}")
        whole = shape == (most, GAP)
        published = INFILLING.get(paper_model(subject.name) or "", {}).get(name) if whole else None
        rows.append((name, "RR", wilson(int(refused.sum()), len(refused)), None))
        rows.append((name, "RR with guard", wilson(int((refused | flagged).sum()), len(refused)), None))
        rows += _harmful_rates(name, recording, judge, published=published[0] if published else None)
        if (defended := diffuguard_of(sampler, say)) is not None:
            folder = subject.path / "infilling" / f"{name}-diffuguard"
            made = record(model, attacked, defended, layers=layers, batch_size=batch_size, out=folder, engine=engine)
            count = int(made.table["refused"].sum())
            say(f"{name} with DiffuGuard: {count} refused")
            rows.append((name, "RR with DiffuGuard", wilson(count, len(made)), None))
            rows += _harmful_rates(name, made, judge, " with DiffuGuard")
        notes += ["" if whole else size] * (len(rows) - len(notes))
    return subject.table(rows, notes)


def _harmful_rates(
    name: str, recording: Recording, judge: Judge | None, defended: str = "", published: float | None = None
) -> list[Row]:
    """The ASR of a recording, where there is a judge of harm."""
    if judge is None or not judge.judges_harm:
        return []
    found = success_table(recording, judge).iloc[0]
    return [(name, f"{found['rate']}{defended}", found, published)]


def diffuguard_of(sampler: Sampler, say: Callable[[str], None]) -> DiffuGuard | None:
    """DiffuGuard in the place of a sampler of whole canvases, repairing whatever was planted; None where it cannot."""
    if not isinstance(sampler, MaskedDiffusion):
        return None
    try:
        return DiffuGuard.of(sampler, lambda_=0.0)
    except InputError as error:
        say(f"DiffuGuard: left out, {error}")
        return None


def template_shape(
    attack: Callable[[Prompt, int, int], Prompt], most: int, model: Model, sampler: Sampler
) -> tuple[int, int] | None:
    """Steps, at most `most` and at least 2, and gap of the largest template that a response has room for, if any."""
    shapes = ((steps, gap) for steps in range(most, 1, -1) for gap in GAPS)
    return next((one for one in shapes if _fits(model, attack(Prompt("a template", ""), *one), sampler)), None)


def _fits(model: Model, prompt: Prompt, sampler: Sampler) -> bool:
    try:
        return bool(forced_of(model, prompt, sampler, prompt.id))
    except InputError:
        return False
