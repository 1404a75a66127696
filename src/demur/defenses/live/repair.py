"""Recover instead of refuse: a block that a streaming guard flags is masked again and filled in anew.

In: a batch of prompts, a sampler that works in blocks, and a fitted guard. Out: the same table as of stopping. What
stood in a flagged block may not return to its place; finished blocks stay. After a few attempts a generation is
stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from demur.defenses.live.tap import Tap
from demur.defenses.live.watching import Reading
from demur.guards import StreamingGuard
from demur.models import Model
from demur.recording.encoded import Encoded
from demur.recording.gaps import text_with_gaps
from demur.recording.generate import pad_left, samples_for
from demur.samplers import Sampler, Step
from demur.samplers.step import FREE


@dataclass
class _Row:
    """A generation under way.

    forced : int64 ``[response]``, what stands from the start of the next attempt, `FREE` elsewhere. banned : of each
    position the tokens that may not stand there. seen : phi and window of each step before `resume`, that of the block
    to fill in, by step. flagged : the step at which the guard flagged the latest attempt, 0 where it did not.
    committed, known : the response at the end of the latest attempt. highest : the highest score of the first one.
    """

    encoded: Encoded
    forced: NDArray[np.int64]
    banned: list[list[int]]
    seen: dict[int, tuple[torch.Tensor, torch.Tensor | None]] = field(default_factory=dict)
    resume: int = 0
    repairs: int = 0
    flagged: int = 0
    flagged_at: int = 0
    committed: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    known: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=bool))
    highest: float | None = None

    def states(self, step: Step, place: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The states of a step, of a block that is finished those that were judged before."""
        if step.index >= self.resume:
            self.seen[step.index] = step.phi[place], None if step.window is None else step.window[place]
        return self.seen[step.index]

    def take_back(self, sampler: Sampler, attempts: int) -> bool:
        """Mask the flagged block again; False where that cannot help, or was tried often enough."""
        if not self.flagged or self.repairs == attempts:
            return False
        first, positions = sampler.block_at(self.flagged, len(self.encoded.ids))
        inside = np.zeros(len(self.known), dtype=bool)
        inside[positions.start : positions.stop] = True
        own = self.known & inside & (self.forced == FREE)
        if not own.any():  # the prompt alone was flagged, or nothing of the block stands yet
            return False
        finished = self.known & (np.arange(len(self.known)) < positions.start)
        self.forced = np.where(finished, self.committed, self.forced)
        for place in np.flatnonzero(own):
            self.banned[place].append(int(self.committed[place]))
        self.resume, self.flagged, self.repairs = first, 0, self.repairs + 1
        return True


def generate_repaired(
    model: Model,
    chosen: Sequence[Encoded],
    sampler: Sampler,
    reading: Reading,
    guard: StreamingGuard,
    attempts: int,
) -> tuple[list[dict[str, Any]], NDArray[np.float64]]:
    """What became of each prompt of a batch, and the highest score of each before anything was repaired.

    attempts : how often a generation may be repaired before it is stopped. Of repaired rows the guard sees the steps
    before the block as they were, and the new ones behind them, so that its limit means what it meant.
    """
    rows = [_begun(one, sampler.response_length) for one in chosen]
    going = rows
    while going:
        _attempt(model, going, sampler, reading, guard)
        going = [row for row in going if row.take_back(sampler, attempts)]
    return [_told(model, row) for row in rows], np.array([row.highest for row in rows], dtype=np.float64)


def _begun(encoded: Encoded, response: int) -> _Row:
    forced = np.full(response, FREE, dtype=np.int64)
    forced[: len(encoded.forced)] = encoded.forced
    return _Row(encoded, forced, [[] for _ in range(response)])


def _attempt(model: Model, rows: list[_Row], sampler: Sampler, reading: Reading, guard: StreamingGuard) -> None:
    """Generate once for some rows, each up to the step at which it is flagged."""
    ids, mask = pad_left([row.encoded.ids for row in rows], model.pad_token_id)
    tap, numbers = Tap(reading, guard, len(rows)), range(len(rows))
    for number in numbers:
        tap.open(number)
    options: dict[str, Any] = samples_for(sampler, [row.encoded for row in rows])
    if any((row.forced != FREE).any() for row in rows):
        options["prefill"] = torch.tensor(np.stack([row.forced for row in rows]))
    if any(map(any, (row.banned for row in rows))):
        options["banned"] = _padded([row.banned for row in rows])
    if reading.looks is not None:
        options["looks"] = reading.looks
    steps = sampler.steps(model, ids, mask, layers=reading.layers, **options)
    stopped: torch.Tensor | None = None
    with closing(steps):
        for _ in range(sampler.step_count + tap.has_prompt):
            step = steps.send(stopped)
            if reading.looks is None or step.index in reading.looks:
                _judge(tap, rows, step)
            found = tap.watching.stopped_at > 0
            for number in numbers:
                if not rows[number].flagged and (found[number] or step.index == sampler.step_count):
                    _end(rows[number], step, number, flagged=bool(found[number]))
            if found.all():
                break
            stopped = torch.as_tensor(found)
    for row, highest in zip(rows, tap.watching.highest, strict=True):
        row.highest = float(highest) if row.highest is None else row.highest


def _judge(tap: Tap, rows: list[_Row], step: Step) -> None:
    """Let the guard see a step of every row that it has not flagged."""
    here = [number for number, row in enumerate(rows) if not row.flagged]
    phi, windows = zip(*(rows[number].states(step, number) for number in here), strict=True)
    window = None if windows[0] is None else torch.stack(windows)
    tap.judge(here, torch.stack(phi), window, step=step.index)


def _end(row: _Row, step: Step, number: int, *, flagged: bool) -> None:
    row.committed, row.known = (one[number].cpu().numpy() for one in (step.committed, step.is_committed))
    if flagged:
        row.flagged = max(1, step.index)
        row.flagged_at = row.flagged_at or row.flagged


def _padded(banned: list[list[list[int]]]) -> torch.Tensor:
    """Lists of tokens of each row and position as int64 ``[rows, response, most]``, filled up with `FREE`."""
    most = max(len(one) for row in banned for one in row)
    return torch.tensor([[one + [FREE] * (most - len(one)) for one in row] for row in banned])


def _told(model: Model, row: _Row) -> dict[str, Any]:
    text = None
    if model.tokenizer is not None:
        text = text_with_gaps(model.decode, row.committed, row.known, model.eos_token_ids)
    found = {"stopped_at": row.flagged, "text": text, "tokens": int(row.known.sum())}
    return {**found, "flagged_at": row.flagged_at, "repairs": row.repairs}
