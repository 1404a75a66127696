"""What the step viewer plays: the generations of a run, with all that is known of each.

In: the folder of a study, or of a recording whose signal can be had. Out: `Played`. How the tokens are packed and
what the page looks like is left to others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from demur.errors import InputError
from demur.recording import Recording
from demur.recording import folder as files
from demur.recording.derived import Deriver, Shard, derive
from demur.report.viewer.packing import Track, track_of
from demur.studies.compare.runs import signal_of
from demur.studies.study.derivers import TEXT_SIGNAL
from demur.studies.study.results import PROMPT_SETS, SETTINGS, Study, is_study, read_study

COLUMNS = ["set", "id", "group", "attack", "prompt", "text", "refused", "flagged", "guard_error"]


@dataclass(frozen=True)
class Played:
    """The generations of one model under one sampler.

    generations : a row a generation with `COLUMNS`; what a run does not know is missing.
    signals, text_signals : float32 ``[generations, steps]``, NaN where there is none.
    references : float32 ``[2, steps]``, of answered harmless and refused harmful prompts; None where unknown.
    limit : the guard's limit, None where there is no guard.
    recordings : where the tokens are; together they hold the rows of `generations`, in that order.
    derived : what `TRACKS` and `BLANKS` give for each recording, where it is known already.
    """

    model: str
    generations: pd.DataFrame
    signals: np.ndarray
    text_signals: np.ndarray
    references: np.ndarray | None
    limit: float | None
    recordings: Sequence[Recording]
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

    @cached_property
    def _of_shards(self) -> Sequence[Mapping[str, Any]]:
        return self.derived or [derive(recording, [TRACKS, BLANKS]) for recording in self.recordings]

    @property
    def tracks(self) -> list[Track]:
        """How the response of every generation came about, in the order of the rows."""
        return [track for found in self._of_shards for track in found[TRACKS.name]]

    def blank_tokens(self) -> list[int]:
        """Ids that fill positions to which nothing was ever committed: the sampler's mask or padding."""
        return sorted({token for found in self._of_shards for tokens in found[BLANKS.name] for token in tokens})


def _blanks(shard: Shard) -> list[list[int]]:
    pairs = zip(shard.arrays["tokens"], shard.arrays["committed_at"], strict=True)
    return [np.unique(tokens[committed_at == 0]).tolist() for tokens, committed_at in pairs]


TRACKS = Deriver("tracks", lambda shard: [track_of(tokens) for _, tokens in shard.all_steps_tokens()])
BLANKS = Deriver("blanks", _blanks)


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
    return Played(
        model=str(study.settings["model"]),
        generations=study.generations.iloc[order].reset_index(drop=True).reindex(columns=COLUMNS),
        signals=study.signals[order],
        text_signals=study.text_signals[order],
        references=study.references,
        limit=(study.settings.get("guard") or {}).get("threshold"),
        recordings=recordings,
    )


def played_recording(recording: Recording) -> Played:
    """The generations of a recording by itself, without references, guard and, where it has no text, text signal."""
    signal = signal_of(recording)
    wanted = [signal, TRACKS, BLANKS, *([TEXT_SIGNAL] if recording.table["text"].notna().all() else [])]
    found = derive(recording, wanted)
    signals = found[signal.name]
    return Played(
        model=recording.provenance.model,
        generations=recording.table.assign(set=recording.path.name).reindex(columns=COLUMNS),
        signals=signals,
        text_signals=found.get(TEXT_SIGNAL.name, np.full_like(signals, np.nan)),
        references=None,
        limit=None,
        recordings=[recording],
        derived=[found],
    )


def _recording_of(study: Study, name: str, rows: np.ndarray) -> Recording:
    recording = Recording(study.path / "recordings" / name)
    if recording.table["id"].tolist() != study.generations["id"].iloc[rows].tolist():
        raise InputError(
            f"{recording.path}: holds other prompts than the study's {name}; run its `demur study` again, "
            f"which generates nothing that is there"
        )
    return recording
