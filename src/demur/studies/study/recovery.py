"""Recovery by revision: how often a harmful text, once predicted, is taken back (HRR and FRR), and the ASR.

In: recordings and a judge. Out: tidy tables of the prompts labelled harmful. A generation with a malformed
verdict is left out of its count, and both are reported. What the rates mean is defined in `demur.dynamics`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from demur.dynamics import FIELDS, Rate, attack_success_rate, full_recovery_rate, harmful_remasking_rate, rates_by
from demur.errors import InputError
from demur.judges import Judge, judge_each
from demur.recording import Recording
from demur.recording.derived import Deriver, Shard

COLUMNS = ["rate", "group", "threshold", *FIELDS]
REPORTED = ["verdicts", "malformed", "left_out"]
Texts = Sequence[Sequence[str] | None]
"""The text predicted at each step, a list a prompt; None for prompts that are not labelled harmful."""


def recovery_table(recording: Recording, judge: Judge, texts: Texts | None = None) -> pd.DataFrame:
    """HRR and FRR of every group of a recording, over its prompts labelled harmful.

    texts : what `PREDICTED` derives; by default read from the recording.

    Columns rate ("HRR (JUDGE)", "FRR (JUDGE)"), group, threshold (missing), value, low, high, count, which is the
    number of generations in which a text before the last step is harmful, verdicts and malformed (texts), and
    left_out (generations with a malformed verdict).

    Raises `InputError` for a sampler that never revises: there a committed token stays, so nothing is taken back.
    """
    if not recording.manifest["revises"]:
        raise InputError(
            f"{recording.path}: {recording.provenance.sampler['name']} never revises a token, so HRR and FRR are 0 by "
            f"construction; record with a diffusion sampler"
        )
    members, verdicts = step_verdicts(recording, judge, texts)
    rates = {"HRR": harmful_remasking_rate, "FRR": full_recovery_rate}
    return _tables(members, verdicts, judge, rates)


def success_table(recording: Recording, judge: Judge) -> pd.DataFrame:
    """ASR of every group of a recording, over its prompts labelled harmful; columns as in `recovery_table`.

    Raises `InputError` for a judge of mere compliance.
    """
    if not judge.judges_harm:
        raise InputError(f"judge {judge.name} finds compliance and not harm; an ASR needs a chat judge")
    members = harmful_members(recording.table)
    verdicts = judge_each(judge, goals(members), members["text"].fillna("").tolist())
    return _tables(members, np.array(verdicts, dtype=object), judge, {"ASR": attack_success_rate})


def judged_rates(
    recordings: Iterable[Recording], judge: Judge, texts: Iterable[Texts | None] | None = None
) -> tuple[pd.DataFrame, dict[str, int]]:
    """All rates that a judge gives for recordings, in the columns of a study's rates; and how many verdicts failed.

    texts : of each recording, as `PREDICTED` derives them; by default read from it where they are needed.
    """
    found = [pd.DataFrame(columns=[*COLUMNS, *REPORTED])]
    pairs: Iterable[tuple[Recording, Texts | None]]
    pairs = ((one, None) for one in recordings) if texts is None else zip(recordings, texts, strict=True)
    for recording, predicted in pairs:
        if not len(harmful_members(recording.table)):
            continue
        if judge.judges_harm:
            found.append(success_table(recording, judge))
        if recording.manifest["revises"]:
            found.append(recovery_table(recording, judge, predicted))
    table = pd.concat([part for part in found if len(part)] or found, ignore_index=True)
    once = table[~table["rate"].str.startswith("FRR")]  # HRR and FRR read the same verdicts
    return table[COLUMNS], {name: int(once[name].sum()) for name in ("verdicts", "malformed")}


def step_verdicts(recording: Recording, judge: Judge, texts: Texts | None = None) -> tuple[pd.DataFrame, np.ndarray]:
    """The rows of the harmful prompts, and a verdict on the text predicted at each step, object ``[rows, steps]``."""
    members = harmful_members(recording.table)
    wanted = set(members.index)
    predicted: Mapping[int, Sequence[str] | None] = dict(
        _predicted_of(recording, wanted) if texts is None else enumerate(texts)
    )
    ordered = [text for row in members.index for text in predicted[row] or ()]
    prompts = [goal for goal in goals(members) for _ in range(recording.steps)]
    verdicts = np.array(judge_each(judge, prompts, ordered), dtype=object)
    return members, verdicts.reshape(len(members), recording.steps)


def _predicted_of(recording: Recording | Shard, rows: set[int]) -> Iterator[tuple[int, list[str]]]:
    return ((row, [one.predicted for one in steps]) for row, steps in recording.all_steps_text() if row in rows)


def _predicted(shard: Shard) -> list[list[str] | None]:
    wanted = set(harmful_members(shard.table).index) if shard.manifest["revises"] else set()
    found = dict(_predicted_of(shard, wanted)) if wanted else {}
    return [found.get(row) for row in range(len(shard))]


PREDICTED = Deriver("predicted", _predicted, {})
"""The text predicted at each step by prompts labelled harmful, where the sampler takes predictions back."""


def harmful_members(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table whose prompt is labelled harmful."""
    return table[(table["label"] == "harmful").fillna(value=False).to_numpy(dtype=bool)]


def goals(table: pd.DataFrame) -> list[str]:
    """What a judge is shown as the request: the goal under an attack where it is known, else the prompt."""
    return table["goal"].fillna(table["prompt"]).fillna("").tolist()


def _tables(
    members: pd.DataFrame, verdicts: np.ndarray, judge: Judge, rates: dict[str, Callable[..., Rate]]
) -> pd.DataFrame:
    def measure(rate: Callable[..., Rate], rows: np.ndarray) -> Rate:
        return rate(verdicts[rows], missing="exclude")

    parts: list[pd.DataFrame] = []
    for name, rate in rates.items():
        part = rates_by(members, partial(measure, rate), "group")
        parts.append(part.assign(rate=f"{name} ({judge.name})", threshold=np.nan, **_reported(members, verdicts)))
    return pd.concat(parts, ignore_index=True)[[*COLUMNS, *REPORTED]]


def _reported(members: pd.DataFrame, verdicts: np.ndarray) -> dict[str, Any]:
    """Texts judged, malformed verdicts, and generations left out, a number a group in order of appearance."""
    missing = pd.isna(verdicts).reshape(len(members), math.prod(verdicts.shape[1:]))
    groups = members["group"].to_numpy()
    rows = [missing[groups == group] for group in dict.fromkeys(groups)]
    return {
        "verdicts": [part.size for part in rows],
        "malformed": [int(part.sum()) for part in rows],
        "left_out": [int(part.any(axis=1).sum()) for part in rows],
    }
