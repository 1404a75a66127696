"""A log of verdicts against a recording: would the guard have said the same?

In: the entries of a log, a recording of some of the prompts, and the guards. Out: what agrees and what differs. An
entry is found in the recording by the hash of its messages; what was drawn at another temperature, or is not recorded,
is counted and passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur.guards import LinearGuard
from demur.recording import Recording
from demur.serve.guards import Watched
from demur.serve.verdict_log import prompt_key

TOLERANCE = 1e-2
"""Scores nearer than this share of the limit are taken for the same: engines add in another order."""


@dataclass(frozen=True)
class Difference:
    """Where a log and a recording differ: the line of the log, the recording's prompt, and both verdicts."""

    line: int
    prompt: str
    guard: str
    logged_stop: int
    recorded_stop: int
    logged_score: float | None
    recorded_score: float


@dataclass
class Replay:
    """What a replay has found. compared : verdicts. drawn, unknown : entries that were passed over, see `replay`."""

    compared: int = 0
    drawn: int = 0
    unknown: int = 0
    largest: float = 0.0
    differences: list[Difference] = field(default_factory=list)


def replay(entries: Sequence[Mapping[str, Any]], recording: Recording, watched: Sequence[Watched]) -> Replay:
    """Hold every verdict of a log against what the guards say of the same prompt in a recording.

    A generation that was cut off or stopped is compared as far as it went. drawn : entries whose tokens were drawn
    otherwise than the recording's. unknown : prompts that it does not hold.
    """
    rows: dict[str, int] = {}
    for row, text in enumerate(recording.table["prompt"]):
        if isinstance(text, str):
            rows.setdefault(prompt_key([{"role": "user", "content": text}]), row)
    known = {one.name: _Looks.of(one, recording) for one in watched}
    temperature = float(recording.provenance.sampler.get("temperature") or 0)
    found = Replay()
    for entry in entries:
        if "prompt" not in entry or entry.get("finish_reason") in ("error", "cancelled"):
            continue
        if float(entry["temperature"]) != temperature or temperature > 0:
            found.drawn += 1
        elif entry["prompt"] not in rows:
            found.unknown += 1
        else:
            _compare(found, entry, rows[entry["prompt"]], recording, known)
    return found


@dataclass(frozen=True)
class _Looks:
    """Of one guard on a recording: the steps at which it looks, each look's score, and its limit."""

    steps: NDArray[np.int64]
    scores: NDArray[np.floating[Any]]
    limit: float

    @classmethod
    def of(cls, one: Watched, recording: Recording) -> _Looks:
        source = one.source
        if isinstance(source, LinearGuard):
            values = source.place_errors(source.states(recording))
            places = np.arange(1, values.shape[1] + 1)
            steps = source.steps_of(places, recording.steps)
        else:
            values = source.signal(recording)
            steps = np.arange(1, values.shape[1] + 1)
        return cls(np.asarray(steps), one.guard.step_scores(values), float(one.guard.threshold_))


def _compare(
    found: Replay, entry: Mapping[str, Any], row: int, recording: Recording, known: Mapping[str, _Looks]
) -> None:
    for said in entry["guards"]:
        looks = known.get(said["guard"])
        if looks is None or not said["looks"]:
            continue
        seen = min(int(said["looks"]), len(looks.steps))
        over = np.flatnonzero(~(looks.scores[row, :seen] <= looks.limit))
        stop = int(looks.steps[over[0]]) if len(over) else 0
        score, logged = float(looks.scores[row, seen - 1]), said["score"]
        apart = abs(score - logged) if logged is not None else float("inf")
        found.compared += 1
        found.largest = max(found.largest, apart)
        if stop != said["stopped_at"] or apart > TOLERANCE * max(1.0, looks.limit):
            name = str(recording.table["id"].iloc[row])
            found.differences.append(
                Difference(entry["line"], name, said["guard"], said["stopped_at"], stop, logged, score)
            )
