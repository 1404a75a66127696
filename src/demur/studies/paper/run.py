"""`run_paper`: the paper's whole protocol for any models, a table a module.

In: models and a folder of prompts. Out: a folder a model with its studies, and every table of the protocol as one tidy
file over all models. All that generates resumes; all else is computed again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from demur.attacks import attack_prompts
from demur.errors import InputError
from demur.files.manifests import write_manifest
from demur.files.staging import switched
from demur.files.tables import write_table
from demur.guards.calibration import warned_already
from demur.judges import Judge
from demur.models import Layer, Model
from demur.prompts import ReadOptions, write_prompts
from demur.recording.engine import Engine
from demur.studies.material import ROUNDS
from demur.studies.paper.material import PaperMaterial
from demur.studies.paper.subject import Subject
from demur.studies.paper.tables import PAPER_TABLES
from demur.studies.study.controls import WRAPPED
from demur.studies.study.prompt_sets import read_sets
from demur.studies.study.results import PROMPT_SETS
from demur.studies.study.run import run_study

LAYERS: tuple[Layer, ...] = ("first", "quarter", "middle", "last")
LIST = "tables.json"
"""The hashes of the tables that belong together."""
ADDED = ("refusal-suppression", "flip-characters-in-sentence")
"""Attacks of the paper that are transforms; made from test_harmful where the prompts hold none of their name."""


@dataclass(frozen=True)
class Paper:
    """The protocol's results: `tables` by the names in `PAPER_TABLES`, and the subjects they come from."""

    path: Path
    tables: dict[str, pd.DataFrame]
    subjects: list[Subject]


def run_paper(
    models: Sequence[str],
    load: Callable[[str], Model],
    prompts: str | Path,
    out: str | Path,
    *,
    steps: int = 32,
    batch_size: int = 16,
    limit: int | None = None,
    quantile: float = 0.99,
    judge: Judge | None = None,
    guard_models: Sequence[str] = (),
    engine: Engine | None = None,
    seed: int = 0,
    resume: bool = True,
    check: bool = True,
    read: ReadOptions | None = None,
    harden: bool = False,
    harden_rounds: int = ROUNDS,
    harden_longest: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Paper:
    """Run the protocol for every model, one in memory at a time.

    models : Hub ids, folders, .gguf files or bundled names, each loaded by `load`. prompts : as in `run_study`.
    engine : what generates in place of demur's own loop, but where a defense is timed; see `record`.
    guard_models : Hub ids or folders of chat guards to compare, such as Llama Guard.
    harden, harden_rounds, harden_longest : as in `run_study`, for the model under its own sampler.
    Raises `InputError` for two models whose names end alike, and as `run_study` does.
    """
    out = Path(out)
    folders = {name: out / "models" / Path(name).name for name in models}
    if len(set(folders.values())) < len(models) or not models:
        raise InputError(f"models {', '.join(models) or 'none'}: give one or more whose names end differently")
    prepared = write_sets(Path(prompts), out / "prompts", limit, read)
    found: dict[str, list[pd.DataFrame]] = {kind.name: [] for kind in PAPER_TABLES.in_order()}
    subjects = []
    for name, folder in folders.items():
        say(f"{name}")
        model = load(name)
        told = _indented(say)
        arguments: dict[str, Any] = {"batch_size": batch_size, "quantile": quantile, "seed": seed}
        common: dict[str, Any] = {**arguments, "layers": LAYERS, "judge": judge, "resume": resume, "say": told}
        common |= {"check": check, "engine": engine}
        sampler = model.default_sampler(steps=steps, seed=seed)
        hardening: dict[str, Any] = {"harden": harden, "harden_rounds": harden_rounds, "harden_longest": harden_longest}
        study = run_study(model, prepared, folder / "own", sampler=sampler, **common, **hardening)
        ordered = None
        left = sampler.from_left()
        if left is not None:
            told("the same weights from left to right")
            ordered = replace(run_study(model, prepared, folder / "left-to-right", sampler=left, **common), made=None)
        subject = Subject(name, study, ordered)
        subjects.append(Subject(name, replace(study, made=None), ordered))  # what it was made from is not kept so long
        material = PaperMaterial(subject, model, sampler, judge, guard_models, say=told, engine=engine, **arguments)
        with warned_already():
            for table, parts in found.items():
                parts.append(PAPER_TABLES[table].make(material))
    tables = {name: pd.concat(parts, ignore_index=True) for name, parts in found.items()}
    with switched(out / "tables", LIST) as new:
        write_manifest(
            new / LIST,
            {"tables": {name: write_table(new / f"{name}.parquet", table) for name, table in tables.items()}},
        )
    return Paper(out, tables, subjects)


def write_sets(prompts: Path, folder: Path, limit: int | None, read: ReadOptions | None = None) -> Path:
    """The prompt sets with the attacks of `ADDED` among test_attacks, as files; returns `folder`."""
    sets = read_sets(prompts, limit, read)
    attacks = list(sets.get("test_attacks", []))
    have = {_bare(prompt.attack or "") for prompt in attacks}
    for name in ADDED:
        if _bare(name) not in have:
            attacks += attack_prompts(name, sets["test_harmful"])
    for name in PROMPT_SETS:
        write_prompts(attacks if name == "test_attacks" else sets[name], folder / f"{name}.jsonl")
    controls = sets.keys() - set(PROMPT_SETS)
    for name in controls - {WRAPPED} or controls:  # those in wrappers are made anew, of the added attacks too
        write_prompts(sets[name], folder / f"{name}.jsonl")
    return folder


def _bare(attack: str) -> str:
    """An attack's name without what spellings of one name differ in: case, hyphens, underscores and blanks."""
    return re.sub(r"[\s_-]+", " ", attack).strip().casefold()


def _indented(say: Callable[[str], None]) -> Callable[[str], None]:
    return lambda line: say(f"  {line}")
