"""One generation step by step: which tokens stood where, which were a guess, and what the signals said.

In: a study, the place of a generation in it, and a judge. Out: a `Walk`. Also the rule by which a generation that
recovers by revision is found. Drawing is left to the report.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

from demur.judges import Judge, judge_each, refused
from demur.recording import Recording
from demur.recording.recording import StepTokens
from demur.studies.study.recovery import goals, step_verdicts
from demur.studies.study.results import Study

Kind = Literal["committed", "new", "guess"]


class Token(NamedTuple):
    """A response position at one step.

    text : empty where the token is an end-of-sequence. kind : "new" is committed at this very step, "guess" not yet.
    changed : whether another token stood or was guessed there the step before.
    """

    text: str
    kind: Kind
    changed: bool
    ends: bool


@dataclass(frozen=True)
class WalkStep:
    """One step: its tokens, the signal, the text-level signal, and whether the predicted text complies."""

    index: int
    tokens: list[Token]
    signal: float
    text_signal: float
    complies: bool | None


@dataclass(frozen=True)
class Walk:
    """A generation of a study, step by step; `place` is its row in the study's generations."""

    place: int
    id: str
    group: str
    prompt: str
    text: str
    refused: bool
    flagged: bool
    steps: list[WalkStep]


@dataclass(frozen=True)
class Recovery:
    """The generation that recovered latest: its place, how many recovered at all, and of how many."""

    place: int | None
    recovered: int
    count: int


def walk_of(study: Study, place: int, judge: Judge) -> Walk:
    """The generation in row `place` of a study whose recordings are still in its folder."""
    row = study.generations.iloc[place]
    recording = Recording(study.path / "recordings" / str(row["set"]))
    at = recording.table["id"].tolist().index(row["id"])
    texts = [step.predicted for step in recording.steps_text(at)]
    verdicts = judge_each(judge, goals(recording.table.iloc[[at] * len(texts)]), texts)
    tokens = _tokens(recording, recording.steps_tokens(at))
    signals = (study.signals[place].tolist(), study.text_signals[place].tolist())
    steps = [WalkStep(i, *parts) for i, parts in enumerate(zip(tokens, *signals, verdicts, strict=True), start=1)]
    return Walk(
        place=place,
        id=str(row["id"]),
        group=str(row["group"]),
        prompt=str(row["prompt"]),
        text=str(row["text"]),
        refused=bool(row["refused"]),
        flagged=bool(row["flagged"]),
        steps=steps,
    )


def latest_recovery(study: Study, judge: Judge) -> Recovery:
    """Among harmful prompts whose final text refuses, the one whose predicted text complied latest before.

    Of several at the same step, the one with the highest signal there. The count is of the generations that refuse.
    """
    best: tuple[int, float] = (0, 0.0)
    found, recovered, count = None, 0, 0
    for name in dict.fromkeys(study.generations["set"]):
        if name not in ("test_harmful", "test_attacks"):
            continue
        members, verdicts = step_verdicts(Recording(study.path / "recordings" / name), judge)
        places = np.flatnonzero(study.generations["set"] == name)[members.index]
        for place, row, text in zip(places, verdicts, members["text"], strict=True):
            if not refused(text or ""):
                continue
            count += 1
            complied = np.flatnonzero(row[:-1] == True)  # noqa: E712
            if not len(complied):
                continue
            recovered += 1
            key = (int(complied[-1]), float(study.signals[place, complied[-1]]))
            if found is None or key > best:
                found, best = int(place), key
    return Recovery(found, recovered, count)


def shown_steps(walk: Walk, every: int = 4) -> list[WalkStep]:
    """The steps worth a row: the first, the last, each `every`-th, and those at which a verdict or the signal turns.

    Steps at which nothing stands otherwise than before are left out, the last one excepted.
    """
    first, *others = walk.steps
    chosen = [first]
    for before, step in pairwise(walk.steps):
        moves = any(token.kind == "new" or token.changed for token in step.tokens)
        regular = moves and step.index % every == 0
        if regular or step is others[-1] or _turned(before, step):
            chosen.append(step)
    return chosen


def _turned(before: WalkStep, step: WalkStep) -> bool:
    crossed = (before.signal > 0.5) != (step.signal > 0.5)
    return crossed or before.text_signal != step.text_signal or before.complies != step.complies


def _tokens(recording: Recording, found: StepTokens) -> list[list[Token]]:
    """The tokens of every step; an autoregressive sampler guesses nothing, so that only what is committed stands."""
    ends = set(recording.manifest["eos_token_ids"])
    texts = {int(one): _piece(recording.tokenizer, int(one)) for one in np.unique(found.predicted)}
    texts |= dict.fromkeys(ends, "")
    committed_before = np.vstack([np.zeros_like(found.is_committed[:1]), found.is_committed[:-1]])
    predicted_before = np.vstack([found.predicted[:1], found.predicted[:-1]])
    steps = []
    for now, before, ids, earlier in zip(
        found.is_committed, committed_before, found.predicted, predicted_before, strict=True
    ):
        places = range(len(ids)) if recording.manifest["revises"] else np.flatnonzero(now)
        steps.append(
            [
                Token(texts[ids[i]], _kind(now[i], before[i]), bool(ids[i] != earlier[i]), int(ids[i]) in ends)
                for i in places
            ]
        )
    return steps


def _piece(tokenizer: Any, token: int) -> str:
    """The text of a token inside a sentence; decoded alone, it would lose the blank in front of it."""
    once = tokenizer.decode([token])
    return str(tokenizer.decode([token, token])[len(once) :])


def _kind(now: bool, before: bool) -> Kind:
    return "guess" if not now else "committed" if before else "new"
