"""Runs to compare: studies or recordings of the same prompts, read alike and brought into one order.

In: folders. Out: `Run`s whose rows belong together, prompt by prompt, each with a label that says what sets it
apart. What is measured on them is left to `compare`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from demur.errors import InputError
from demur.judges import CompliesJudge, Judge
from demur.provenance import UNCOMPARED_SAMPLER_ARGUMENTS
from demur.recording import Recording
from demur.recording.derived import Deriver, derive
from demur.recording.folder import MANIFEST, is_recording
from demur.signal import Anchors
from demur.studies.study.derivers import signal
from demur.studies.study.lengths import ANSWER_TOKENS
from demur.studies.study.recovery import PREDICTED, judged_rates
from demur.studies.study.results import SETTINGS, Study, is_study, read_study

ANCHORS = "anchors.safetensors"
KEY = ["set", "id"]
CONTENT = ["prompt", "label", "attack", "goal"]
COLUMNS = [*KEY, "group", *CONTENT, "text", "refused", "answer_tokens"]


@dataclass(frozen=True)
class Run:
    """One model under one sampler over some prompts.

    generations : a row a prompt with `COLUMNS`. sigma : float32 ``[prompts, steps]``, in its row order.
    recovery : HRR and FRR as in a study's rates; empty for samplers that never revise.
    prompts : hash of each prompt set, which covers token ids and prefills too.
    """

    path: Path
    model: str
    fingerprint: str
    sampler: Mapping[str, Any]
    generations: pd.DataFrame
    sigma: np.ndarray
    recovery: pd.DataFrame
    prompts: Mapping[str, str]

    def take(self, rows: np.ndarray) -> Run:
        """The same run with some of its prompts; its recovery rates, being those of all, go where one is left out."""
        recovery = self.recovery if len(rows) == len(self.generations) else self.recovery.iloc[:0]
        generations = self.generations.iloc[rows].reset_index(drop=True)
        return replace(self, generations=generations, sigma=self.sigma[rows], recovery=recovery)


def read_run(folder: str | Path | Study, judge: Judge | None = None) -> Run:
    """A study or its folder, or a recording that keeps the signal or has its ``anchors.safetensors`` in its folder.

    judge : of a recording's HRR and FRR; by default the dictionary's. A study brings its own.
    """
    if isinstance(folder, Study):
        return _of_study(folder)
    folder = Path(folder)
    if is_study(folder):
        return _of_study(read_study(folder))
    if is_recording(folder):
        return _of_recording(Recording(folder), judge or CompliesJudge())
    raise InputError(f"{folder}: holds neither a study ({SETTINGS}) nor a recording ({MANIFEST}); run `demur study`")


def _of_study(study: Study) -> Run:
    tested = study.generations["set"].str.startswith("test_").to_numpy(dtype=bool)
    if "answer_tokens" not in study.generations:
        raise InputError(
            f"{study.path}: an earlier demur made it; run its `demur study` again, which generates nothing"
        )
    recovery = study.rates[study.rates["rate"].str.match("HRR|FRR")]
    return Run(
        path=study.path,
        model=study.settings["model"],
        fingerprint=study.settings["fingerprint"],
        sampler=study.settings["sampler"],
        generations=study.generations.loc[tested, COLUMNS].reset_index(drop=True),
        sigma=study.signals[tested],
        recovery=recovery.reset_index(drop=True),
        prompts=study.settings["prompts"],
    )


def _of_recording(recording: Recording, judge: Judge) -> Run:
    made = recording.provenance
    sigma = signal_of(recording)
    found = derive(recording, [sigma, ANSWER_TOKENS, PREDICTED])
    rates, _ = judged_rates([recording], judge, [found[PREDICTED.name]])
    return Run(
        path=recording.path,
        model=made.model,
        fingerprint=made.fingerprint,
        sampler=made.sampler,
        generations=recording.table.assign(set="", answer_tokens=found[ANSWER_TOKENS.name])[COLUMNS],
        sigma=found[sigma.name],
        recovery=rates[rates["rate"].str.match("HRR|FRR")].reset_index(drop=True),
        prompts={"": made.prompts},
    )


def signal_of(recording: Recording) -> Deriver:
    """What derives the signal that a recording keeps, or that the anchors in its folder give it."""
    if recording.keep == "signal":
        return Deriver("sigma", lambda shard: shard.sigma)
    path = recording.path / ANCHORS
    if not path.is_file():
        raise InputError(
            f"{recording.path}: a recording needs {ANCHORS} in its folder to have a signal; "
            f"`demur anchors HARMLESS HARMFUL --out {path}` makes one"
        )
    return signal(Anchors.load(path))


def matched(runs: Sequence[Run], *, intersect: bool = False) -> list[Run]:
    """The runs with their rows in the first one's order, prompt by prompt.

    Prompts are one where set, id, text, label, attack and goal agree. Raises `InputError` naming both sides where
    two runs were not made with the same prompts; with `intersect`, only where they share none.
    """
    first, shared = runs[0], np.ones(len(runs[0].generations), dtype=bool)
    places = []
    for other in runs[1:]:
        place = _places(first, other)
        lacking = place < 0
        extra = len(other.generations) - int((~lacking).sum())
        if not intersect and (lacking.any() or extra):
            raise InputError(_difference(first, other, lacking, extra))
        places.append(place)
        shared &= ~lacking
    if not shared.any():
        raise InputError(
            f"{' and '.join(str(run.path) for run in runs)} share no prompt; compare runs of the same prompts"
        )
    return [first.take(np.flatnonzero(shared)), *(run.take(p[shared]) for run, p in zip(runs[1:], places, strict=True))]


def _places(first: Run, other: Run) -> np.ndarray:
    """For each row of `first`, the row of `other` with the same prompt, -1 where there is none."""
    index = {key: place for place, key in enumerate(_keys(other, first))}
    return np.array([index.get(key, -1) for key in _keys(first, other)])


def _keys(run: Run, other: Run) -> list[tuple[Any, ...]]:
    """What makes a prompt the same; a prompt of token ids has no text, and goes by the hash of its set."""
    rows = run.generations[[*KEY, *CONTENT]].astype(object)
    rows = rows.where(rows.notna(), None)
    return [
        (*row, run.prompts.get(row[0])) if row[len(KEY)] is None else (*row, None)
        for row in rows.itertuples(index=False, name=None)
    ]


def _difference(first: Run, other: Run, lacking: np.ndarray, extra: int) -> str:
    example = first.generations["id"][lacking].iloc[:1].tolist()
    named = f" (the first is {example[0]!r})" if example else ""
    return (
        f"{first.path} and {other.path} were not made with the same prompts: {int(lacking.sum())} of "
        f"{len(first.generations)} prompts of the first{named} and {extra} of {len(other.generations)} of the second "
        f"are not in the other with the same id and text; record both anew, or give --intersect for what they share"
    )


def labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run: what sets it apart, be it the model, the sampler or the sampler's arguments."""
    parts: list[list[str]] = [[] for _ in runs]
    facts = [{"model": run.model, "sampler": run.sampler["name"], **_arguments(run)} for run in runs]
    if len({run.fingerprint for run in runs}) == 1:
        for fact in facts:
            del fact["model"]
    for name in dict.fromkeys(name for fact in facts for name in fact):
        if len({repr(fact.get(name)) for fact in facts}) > 1:
            for part, fact in zip(parts, facts, strict=True):
                if name in fact:
                    part.append(str(fact[name]) if name in ("model", "sampler") else f"{name}={fact[name]}")
    found = [", ".join(part) or run.path.name for part, run in zip(parts, runs, strict=True)]
    if len(set(found)) == len(found):
        return found
    return [f"{label} ({place})" for place, label in enumerate(found, start=1)]


def _arguments(run: Run) -> dict[str, Any]:
    return {name: run.sampler[name] for name in run.sampler if name not in {"name", *UNCOMPARED_SAMPLER_ARGUMENTS}}
