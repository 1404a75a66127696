"""`PaperMaterial`: what the protocol's tables are made from for one model, and `PAPER_TABLES`, where they register.

In: nothing; `run_paper` fills it. Out: one object that each table is handed, a model at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from demur.judges import Judge
from demur.models import Model
from demur.recording.engine import Engine
from demur.samplers import Sampler
from demur.studies.paper.subject import Subject
from demur.studies.table import Tables


@dataclass(frozen=True)
class PaperMaterial:
    """A model, its studies, and the arguments of `run_paper`; `say` is called with a line of news."""

    subject: Subject
    model: Model
    sampler: Sampler
    judge: Judge | None
    guard_models: Sequence[str]
    batch_size: int
    quantile: float
    seed: int
    say: Callable[[str], None]
    engine: Engine | None = None


PAPER_TABLES: Tables[PaperMaterial] = Tables("table of the protocol")
"""Every table of the protocol by name. Each is a `Subject.table`; those of all models stand under one another."""

OF_ATTACKS = "it takes attacks in the prompt sets"
OF_DIFFUSION = "it takes a masked diffusion model, and none is among these"
