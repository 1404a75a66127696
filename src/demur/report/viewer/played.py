"""What the step viewer plays: the generations of a run, with all that is known of each.

In: the folder of a study, or of a recording whose signal can be had. Out: `Played`. How the tokens are packed and
what the page looks like is left to others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from demur.errors import InputError
from demur.recording import Recording
from demur.recording import folder as files
from demur.recording.derived import Deriver, Shard, derive
from demur.report.parts.sample import sampled
from demur.report.viewer.packing import Track, track_of
from demur.studies.compare.runs import signal_of
from demur.studies.study.derivers import TEXT_SIGNAL
from demur.studies.study.results import PROMPT_SETS, SETTINGS, Study, is_study, read_study

TRACKS, BLANKS, THOUGHTS = "tracks", "blanks", "thoughts"
MOST = 20_000
"""Generations that are read for a page; of a larger run, a sample."""
COLUMNS = ["set", "id", "group", "attack", "prompt", "text", "refused", "flagged", "guard_error"]


@dataclass(frozen=True)
class Played:
    """The generations of one model under one sampler.

    generations : a row a generation with `COLUMNS`; what a run does not know is missing.
    signals, text_signals : float32 ``[generations, steps]``, NaN where there is none.
    references : float32 ``[2, steps]``, of answered harmless and refused harmful prompts; None where unknown.
    limit : the guard's limit, None where there is no guard.
    recordings : where the tokens are. places : which of their rows `generations` are, int64 ``[generations]``, in
    ascending order; None for all.
    derived : what `derivers_of` gives for each recording, where it is known already; None for rows left out.
    """

    model: str
    generations: pd.DataFrame
    signals: np.ndarray
    text_signals: np.ndarray
    references: np.ndarray | None
    limit: float | None
    recordings: Sequence[Recording]
    places: np.ndarray | None = None
    derived: Sequence[Mapping[str, Any]] = ()

    @property
    def steps(self) -> int:
        """T, the number of steps."""
        return int(self.signals.shape[1])

    @property
    def sampler(self) -> str:
        """The class of the sampler."""
        return str(self.recordings[0].provenance.sampler["name"])

    @property
    def revises(self) -> bool:
        """Whether a prediction that is not committed can change."""
        return bool(self.recordings[0].manifest["revises"])

    @property
    def eos_token_ids(self) -> list[int]:
        """The model's end-of-sequence tokens."""
        return list(self.recordings[0].manifest["eos_token_ids"])

    @property
    def total(self) -> int:
        """Generations of the run, shown or not."""
        return sum(map(len, self.recordings))

    def only(self, chosen: np.ndarray) -> Played:
        """The same with some of its generations alone, by their places among these, in ascending order."""
        places = chosen if self.places is None else self.places[chosen]
        return replace(
            self,
            generations=self.generations.iloc[chosen].reset_index(drop=True),
            signals=self.signals[chosen],
            text_signals=self.text_signals[chosen],
            places=places,
        )

    @cached_property
    def _of_shards(self) -> Sequence[Mapping[str, Any]]:
        if self.derived:
            return self.derived
        starts = np.cumsum([0, *map(len, self.recordings)])
        chosen = np.arange(self.total) if self.places is None else self.places
        return [
            derive(recording, derivers_of(chosen[(chosen >= start) & (chosen < end)] - start))
            for recording, start, end in zip(self.recordings, starts[:-1], starts[1:], strict=True)
        ]

    @property
    def tracks(self) -> list[Track]:
        """How the response of every generation came about, in the order of the rows."""
        tracks = [track for found in self._of_shards for track in found[TRACKS]]
        return tracks if self.places is None else [tracks[place] for place in self.places.tolist()]

    @property
    def thoughts(self) -> list[list[int]]:
        """The positions of each generation that are thought and not answer, in the order of the rows."""
        thoughts = [places for found in self._of_shards for places in found[THOUGHTS]]
        return thoughts if self.places is None else [thoughts[place] for place in self.places.tolist()]

    def blank_tokens(self) -> list[int]:
        """Ids that fill positions to which nothing was ever committed: the sampler's mask or padding."""
        return sorted({token for found in self._of_shards for tokens in found[BLANKS] for token in tokens or ()})


def derivers_of(chosen: np.ndarray) -> list[Deriver]:
    """What gives the tracks, blanks and thoughts of the chosen rows of a recording, and None for all others."""

    def tracks(shard: Shard) -> list[Track | None]:
        wanted = np.isin(shard.rows, chosen)
        every = zip(wanted, range(len(shard)), strict=True)
        return [track_of(shard.recording.tokens_of(shard.arrays, at)) if is_one else None for is_one, at in every]

    def blanks(shard: Shard) -> list[list[int] | None]:
        wanted = np.isin(shard.rows, chosen)
        rows = zip(wanted, shard.arrays["tokens"], shard.arrays["committed_at"], strict=True)
        return [np.unique(tokens[at == 0]).tolist() if is_one else None for is_one, tokens, at in rows]

    def thoughts(shard: Shard) -> list[list[int] | None]:
        wanted = np.isin(shard.rows, chosen)
        if not shard.table["text"].notna().all():  # without a tokenizer nothing can be told
            return [[] if is_one else None for is_one in wanted]
        return [_thought(shard, at) if is_one else None for at, is_one in enumerate(wanted)]

    return [Deriver(TRACKS, tracks), Deriver(BLANKS, blanks), Deriver(THOUGHTS, thoughts)]


def _thought(shard: Shard, at: int) -> list[int]:
    tokens = shard.recording.tokens_of(shard.arrays, at)
    return [int(place) for place in np.flatnonzero(shard.recording.thought_positions(tokens))]


def read_played(folder: str | Path) -> Played:
    """Read a study's folder, or a recording that keeps its signal or has its ``anchors.safetensors`` in its folder."""
    folder = Path(folder)
    if is_study(folder):
        return played_study(read_study(folder))
    if files.is_recording(folder):
        return played_recording(Recording(folder))
    raise InputError(
        f"{folder}: holds neither a study ({SETTINGS}) nor a recording ({files.MANIFEST}); run `demur study`"
    )


def played_study(study: Study) -> Played:
    """The generations of a study, attacks first, then the other sets from the last to the first, then the controls.

    Raises `InputError` where its recordings are gone or hold other prompts.
    """
    found = list(dict.fromkeys(study.generations["set"]))
    kept = [name for name in reversed(PROMPT_SETS) if name in found]
    kept += [name for name in found if name not in kept]
    places = [np.flatnonzero(study.generations["set"] == name) for name in kept]
    recordings = [_recording_of(study, name, rows) for name, rows in zip(kept, places, strict=True)]
    order = np.concatenate(places)
    played = Played(
        model=str(study.settings["model"]),
        generations=study.generations.iloc[order].reset_index(drop=True).reindex(columns=COLUMNS),
        signals=study.signals[order],
        text_signals=study.text_signals[order],
        references=study.references,
        limit=(study.settings.get("guard") or {}).get("threshold"),
        recordings=recordings,
    )
    return played.only(sampled(group_of(played.generations), MOST)) if played.total > MOST else played


def group_of(generations: pd.DataFrame) -> list[str]:
    """What a sample holds equally many of: prompt sets and groups."""
    return (generations["set"].astype(str) + "/" + generations["group"].astype(str)).tolist()


def played_recording(recording: Recording) -> Played:
    """The generations of a recording by itself, without references, guard and, where it has no text, text signal."""
    signal = signal_of(recording)
    chosen = sampled(recording.table["group"], MOST)
    wanted = [signal, *derivers_of(chosen), *([TEXT_SIGNAL] if recording.table["text"].notna().all() else [])]
    found = derive(recording, wanted)
    signals = found[signal.name]
    played = Played(
        model=recording.provenance.model,
        generations=recording.table.assign(set=recording.path.name).reindex(columns=COLUMNS),
        signals=signals,
        text_signals=found.get(TEXT_SIGNAL.name, np.full_like(signals, np.nan)),
        references=None,
        limit=None,
        recordings=[recording],
        derived=[found],
    )
    return played.only(chosen) if len(chosen) < len(recording) else played


def _recording_of(study: Study, name: str, rows: np.ndarray) -> Recording:
    recording = Recording(study.path / "recordings" / name)
    if recording.table["id"].tolist() != study.generations["id"].iloc[rows].tolist():
        raise InputError(
            f"{recording.path}: holds other prompts than the study's {name}; run its `demur study` again, "
            f"which generates nothing that is there"
        )
    return recording
