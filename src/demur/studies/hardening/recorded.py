"""The shipped material as recorded: which prompts a run takes, their recordings, and the states guards are fitted to.

In: a model and rounds. Out: a recording each, so that a run resumes and goes on with more rounds; and `Material`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.guards import states_of
from demur.guards.places import Places
from demur.looks import Looks
from demur.models import Model
from demur.prompts import Prompt
from demur.recording import Recording, record
from demur.recording.derived import derive
from demur.recording.progress import planned
from demur.samplers import Sampler
from demur.signal import Signal
from demur.studies.material import OWN, OWN_FITTED, ROUNDS, TASKS, family_of, kind_of, material, rest, tasks
from demur.studies.study.controls import fitting_sets
from demur.studies.study.directions import LOOKS as EIGHTHS
from demur.studies.study.directions import placed, states_deriver
from demur.studies.study.fewer import fewer

if TYPE_CHECKING:
    import pandas as pd

EARLY = (1 / 32, 1 / 16)
"""Looks at the first tokens, whose states are still much the prompt's: there probes carry over best to new wrappers."""

LOOKS = (*EARLY, *EIGHTHS)
"""The looks at which generations are watched."""

OWN_MOST = 1_200
"""Prompts of one's own that are fitted on, at most, of each label: the time grows with the third power of all."""

OWN_STATES = "hardening_states"
"""What the derived states of prompts of one's own are called."""


@dataclass(frozen=True)
class Material:
    """States of the shipped prompts, `[prompts, places, layers, width]`, and what each prompt is.

    table : a row a prompt with kind, family, harmful and held_out. places : where the states were taken: at `LOOKS`,
    or at the looks of whole answers.
    """

    states: Signal
    table: pd.DataFrame
    places: Places = LOOKS

    def chosen(self, rows: np.ndarray, places: Places | None = None) -> Signal:
        """The states of some prompts, at some of the places; of whole answers always at all."""
        from demur.guards import states_among

        if isinstance(self.places, Looks):
            lengths = self.states.lengths
            assert lengths is not None  # looks are of answers that have some
            return Signal(np.asarray(self.states)[rows], self.states.provenance, lengths[rows])
        places = LOOKS if places is None else places
        assert not isinstance(places, Looks)
        return states_among(Signal(np.asarray(self.states)[rows], self.states.provenance), LOOKS, places)


def sets_of(
    model: Model,
    sampler: Sampler,
    rounds: int,
    seed: int = 0,
    *,
    longest: int | None = None,
    with_rest: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, list[Prompt]]:
    """The prompts of the material that fit the model's context, by the name of their recording; see `harden`."""
    every = {f"round-{number + 1}": prompts_of(number, seed)[0] for number in range(rounds)}
    if longest is not None:
        for name in list(every)[1:]:
            every[name] = [prompt for prompt in every[name] if _tokens(model, prompt) <= longest]
    if with_rest:
        every |= {"rest": rest(seed), TASKS: [prompt for part in tasks(seed) for prompt in part]}
    return fitting_sets(model, sampler, every, say)


def record_sets(
    model: Model,
    sampler: Sampler,
    every: Mapping[str, Sequence[Prompt]],
    out: Path,
    *,
    say: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> list[Recording]:
    """A recording of each, in ``out/recordings``; those that are there are read. options : further ones of `record`."""
    recordings = []
    with planned(sum(map(len, every.values()))):
        for name, prompts in every.items():
            recordings.append(record(model, prompts, sampler, out=out / "recordings" / name, **options))
            say(f"{name}: {len(recordings[-1])} prompts")
    return recordings


def read_material(
    recordings: Sequence[Recording],
    seed: int = 0,
    own: Recording | None = None,
    *,
    fitted: Mapping[str, Recording] = MappingProxyType({}),
) -> Material:
    """The states and kinds of recorded rounds, of the rest and of the tasks, and of prompts of one's own.

    own : harmless prompts that set limits. fitted : by "harmless" and "harmful", prompts of one's own to fit on; half
        of the harmless ones are held out and set limits too, because a limit needs as many as there are.
    """
    import pandas as pd

    held_out = set().union(*(prompts_of(number, seed)[1] for number in range(ROUNDS)))
    held_out |= {prompt.id for prompt in tasks(seed)[1]}
    layers, places = recordings[0].layers, recordings[0].looks or LOOKS
    parts = [
        (states_of(one, places), _told(one.table).assign(held_out=lambda rows: rows["id"].isin(held_out)))
        for one in recordings
    ]
    for label, one in fitted.items():
        states, rows = _own(one, layers, places, OWN_FITTED)
        held = ~np.isin(np.arange(len(rows)), to_fit(len(rows), harmful=label == "harmful"))
        parts.append((states, rows.assign(harmful=label == "harmful", held_out=held)))
    if own is not None:
        states, rows = _own(own, layers, places, OWN)
        parts.append((states, rows.assign(harmful=False, held_out=True)))
    joined = np.concatenate([np.asarray(states) for states, _ in parts])
    lengths = np.concatenate([states.lengths for states, _ in parts]) if isinstance(places, Looks) else None
    table = pd.concat([rows for _, rows in parts], ignore_index=True)
    return Material(Signal(joined, parts[0][0].provenance, lengths), table, places)


def to_fit(count: int, *, harmful: bool = False) -> np.ndarray:
    """Ascending places of those of one's own prompts that are fitted on, of harmless ones at most half."""
    return fewer(count, min(OWN_MOST, count if harmful else count // 2))


def _own(own: Recording, layers: Sequence[int], places: Places, kind: str) -> tuple[Signal, pd.DataFrame]:
    """States and ids of prompts of one's own: of a study they may hold further layers, and be very many."""
    told = own.table[["id"]].assign(kind=kind, family=kind)
    if isinstance(places, Looks):
        return states_of(own, places), told
    deriver = replace(states_deriver(own, layers, LOOKS), name=OWN_STATES)  # beside the study's, at other places
    return placed(derive(own, [deriver])[OWN_STATES], own, layers, LOOKS), told.iloc[fewer(len(own))]


def prompts_of(number: int, seed: int) -> tuple[list[Prompt], set[str]]:
    """The prompts of a round, and the ids of those that are held out."""
    fitted, held_out = material(number, seed)
    return [*fitted, *held_out], {prompt.id for prompt in held_out}


def _tokens(model: Model, prompt: Prompt) -> int:
    return len(model.encode(prompt.prompt or "", prompt.turns))


def _told(rows: pd.DataFrame) -> pd.DataFrame:
    """What each recorded prompt of the material is: id, kind, family and harmful."""
    kinds = [kind_of(*pair) for pair in zip(rows["attack"], rows["category"], strict=True)]
    harmful = rows["label"].eq("harmful").fillna(False).astype(bool)
    return rows[["id"]].assign(kind=kinds, family=[family_of(kind) for kind in kinds], harmful=harmful)
