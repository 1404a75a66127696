"""What the step viewer plays: the generations of a run, with all that is known of each.

In: the folder of a study, or of a recording whose signal can be had. Out: `Played`. How the tokens are packed and
what the page looks like is left to others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from demur.errors import InputError
from demur.recording import Recording, StepTokens
from demur.recording import folder as files
from demur.studies.compare.runs import signal_of
from demur.studies.study.results import PROMPT_SETS, SETTINGS, Study, is_study, read_study
from demur.studies.study.run import text_signals

COLUMNS = ["set", "id", "group", "attack", "prompt", "text", "refused", "flagged", "guard_error"]


@dataclass(frozen=True)
class Played:
    """The generations of one model under one sampler.

    generations : a row a generation with `COLUMNS`; what a run does not know is missing.
    signals, text_signals : float32 ``[generations, steps]``, NaN where there is none.
    references : float32 ``[2, steps]``, of answered harmless and refused harmful prompts; None where unknown.
    limit : the guard's limit, None where there is no guard.
    recordings : where the tokens are; together they hold the rows of `generations`, in that order.
    """

    model: str
    generations: pd.DataFrame
    signals: np.ndarray
    text_signals: np.ndarray
    references: np.ndarray | None
    limit: float | None
    recordings: Sequence[Recording]

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

    def blank_tokens(self) -> list[int]:
        """Ids that fill positions to which nothing was ever committed: the sampler's mask or padding."""
        return sorted({token for recording in self.recordings for token in recording.fillers()})

    def all_steps_tokens(self) -> Iterator[tuple[int, StepTokens]]:
        """Pairs of a row of `generations` and its token ids at every step, in no order."""
        start = 0
        for recording in self.recordings:
            for row, tokens in recording.all_steps_tokens():
                yield start + row, tokens
            start += len(recording)


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
    signals = np.asarray(signal_of(recording))
    has_text = bool(recording.table["text"].notna().all())
    return Played(
        model=recording.provenance.model,
        generations=recording.table.assign(set=recording.path.name).reindex(columns=COLUMNS),
        signals=signals,
        text_signals=text_signals(recording) if has_text else np.full_like(signals, np.nan),
        references=None,
        limit=None,
        recordings=[recording],
    )


def _recording_of(study: Study, name: str, rows: np.ndarray) -> Recording:
    recording = Recording(study.path / "recordings" / name)
    if recording.table["id"].tolist() != study.generations["id"].iloc[rows].tolist():
        raise InputError(
            f"{recording.path}: holds other prompts than the study's {name}; run its `demur study` again, "
            f"which generates nothing that is there"
        )
    return recording
