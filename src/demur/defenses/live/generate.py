"""Generation under a streaming guard: any sampler, stopped where the guard says so.

In: a model, prompts, a sampler, anchors or a direction, and a fitted `StreamingGuard`. Out: the text of each prompt up
to the step at which it was stopped. The sampler knows nothing of guards; what a user is shown is left to the caller.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from demur.defenses.defense import Defense
from demur.defenses.live.cascade import Hearing, judge_for
from demur.defenses.live.repair import generate_repaired
from demur.defenses.live.tap import Tap
from demur.defenses.live.watching import Reading, Source, Watching
from demur.errors import InputError
from demur.guards import StreamingGuard, drift_of
from demur.models import Model
from demur.prompts import as_prompts
from demur.recording.arguments import chosen_sampler, require_whole
from demur.recording.encoded import Encoded
from demur.recording.gaps import text_with_gaps
from demur.recording.generate import encode, pad_left, samples_for
from demur.recording.recorder import Prompts, describe
from demur.samplers import Prefill, Sampler, Step
from demur.signal import Anchors

if TYPE_CHECKING:
    import pandas as pd


def generate_guarded(
    model: Model,
    prompts: Prompts,
    source: Source,
    guard: StreamingGuard,
    sampler: Sampler | None = None,
    *,
    layer: int | None = None,
    batch_size: int = 16,
    seed: int | None = None,
    on_flag: Literal["stop", "ask", "repair"] = "stop",
    judge: Defense | Model | str | Path | None = None,
    attempts: int = 2,
) -> pd.DataFrame:
    """Generate for every prompt, and no further than the guard lets it.

    prompts : a path, or a list of texts, rows or `Prompt`s. source : the anchors whose signal the guard was fitted on,
        or the `LinearGuard` whose `place_errors`. sampler : by default the model's own with as many steps as were
        recorded to fit them, and `seed`.
    layer : of anchors, by default the highest. batch_size : prompts generated together. A row that is stopped is
        worked on no more, and the batch ends with its last.
    on_flag : "stop", or "ask" to hold a flagged row and ask `judge` about its text so far: it is stopped only if the
        judge agrees, and else goes on and is asked about once more as a whole. judge : a defense that reads texts, or
        a guard model or its name; by default the model itself (`SelfExamine`). With "repair", for `MaskedDiffusion` and
        `BlockDiffusion`, the block in which a row was flagged is masked again and filled in with other tokens, up to
        `attempts` times; a row that is flagged once more is stopped.

    Returns a row a prompt: id, prompt, stopped_at (the step, counted from 1; 0 where it never was), text and tokens
    (how many were committed) until then. A guard on looks judges the prompt's own state before the first token; what
    that stops has a stopped_at of 1 and no tokens. The stops are those of `StreamingGuard.stops` on a recording, along
    a direction turned into steps by `LinearGuard.steps_of`. With "ask" also flagged_at (the step of the first flag),
    asked (how often the judge was) and asking_seconds; with "repair" flagged_at and repairs (how often it was).
    The highest scores are compared with those of the calibration, and one `DriftWarning` says where they no longer look
    alike; see `demur.guards.DriftWatch`.
    Raises `ProvenanceError` where model, sampler, source and guard do not belong together.
    """
    import pandas as pd

    checked = as_prompts(prompts)
    require_whole("batch_size", batch_size)
    sampler = chosen_sampler(model, sampler, _steps_of(source, guard) if sampler is None else None, seed)
    reading = Reading.of(source, guard, layer, describe(model, checked, sampler, ()))
    if isinstance(source, Anchors) and sampler.step_count != guard.n_features_in_:
        raise InputError(
            f"the sampler makes {sampler.step_count} steps and the guard was fitted on {guard.n_features_in_}; "
            "give a sampler with as many."
        )
    asked = judge_for(on_flag, judge, model)
    require_whole("attempts", attempts)
    if on_flag == "repair":
        sampler.block_at(1, 1)  # refuses a sampler without blocks before anything is generated
    drift = drift_of(guard)
    ordered = sorted(encode(model, checked, sampler), key=lambda one: (-len(one.ids), one.row))
    found: dict[int, dict[str, Any]] = {}
    for start in range(0, len(ordered), batch_size):
        chosen = ordered[start : start + batch_size]
        if on_flag == "repair":
            made, highest = generate_repaired(model, chosen, sampler, reading, guard, attempts)
        else:
            said = [str(checked[one.row].prompt or "") for one in chosen]
            hearing = None if asked is None else Hearing(asked, said)
            made, highest = _generate(model, chosen, sampler, reading, guard, hearing)
        found |= zip((one.row for one in chosen), made, strict=True)
        if drift is not None:
            drift.add(highest)
    return pd.DataFrame(
        [{"id": prompt.id, "prompt": prompt.prompt, **found[row]} for row, prompt in enumerate(checked)]
    )


def watched_steps(
    sampler: Sampler,
    model: Model,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *,
    reading: Reading,
    guard: StreamingGuard,
    prefill: Prefill | None = None,
    released: NDArray[np.bool_] | None = None,
    **options: Any,
) -> Iterator[tuple[Step, Watching]]:
    """The steps of a sampler with the watch that has seen them, up to the one at which the last row is stopped.

    A sampler is told which rows are stopped, and works on the others alone: what a later step says of a stopped row
    means nothing. released : bool ``[batch]``, rows that go on although they are stopped; read after every step, so
    that who takes the steps may release a row. options : further arguments of `Sampler.steps`.
    Nothing is checked here but shapes, see `Reading.of` and `generate_guarded`.
    """
    tap, rows = Tap(reading, guard, len(input_ids)), range(len(input_ids))
    for row in rows:
        tap.open(row)
    # Closing a generator ends its forward passes and removes its hooks.
    if reading.looks is not None:
        options["looks"] = reading.looks
    steps = sampler.steps(model, input_ids, attention_mask, layers=reading.layers, prefill=prefill, **options)
    ends = _Ends(sampler)
    stopped = None
    with closing(steps):
        for _ in range(sampler.step_count + tap.has_prompt):
            step = steps.send(stopped)
            if reading.looks is None:
                tap.judge(rows, step.phi)
            elif step.index in reading.looks:
                here = ends.going(step)
                window = None if step.window is None else step.window[here]
                tap.judge(here.tolist(), step.phi[here], window, step=step.index)
            yield step, tap.watching
            found = tap.watching.stopped_at > 0
            if released is not None:
                found &= ~released
            if found.all():
                return
            stopped = torch.as_tensor(found) if found.any() else None


class _Ends:
    """Which rows are still looked at: an answer that ends has no looks behind the first at or after its end."""

    def __init__(self, sampler: Sampler) -> None:
        self._ends = not sampler.revises
        self._before: torch.Tensor | None = None  # how many tokens were committed at the last look

    def going(self, step: Step) -> torch.Tensor:
        """The rows to look at in this step, int64."""
        now, before = step.is_committed.sum(dim=1), self._before
        self._before = now
        everyone = torch.ones_like(now, dtype=torch.bool)
        return (now > before if self._ends and step.index and before is not None else everyone).nonzero()[:, 0].cpu()


def _steps_of(source: Source, guard: StreamingGuard) -> int:
    if isinstance(source, Anchors) or source.provenance_ is None:
        return int(guard.n_features_in_)
    return int(source.provenance_.sampler["steps"])


def _generate(
    model: Model,
    chosen: Sequence[Encoded],
    sampler: Sampler,
    reading: Reading,
    guard: StreamingGuard,
    hearing: Hearing | None,
) -> tuple[list[dict[str, Any]], NDArray[np.float64]]:
    """What became of each prompt of a batch, and the highest score of each."""
    ids, mask = pad_left([one.ids for one in chosen], model.pad_token_id)
    forced = [one.forced.tolist() for one in chosen]
    prefill = forced if any(forced) else None
    texts: list[str | None] = [None] * len(chosen)
    counts = np.zeros(len(chosen), dtype=np.int64)
    stopped_at = np.zeros(len(chosen), dtype=np.int64)
    options: dict[str, Any] = {"prefill": prefill, **samples_for(sampler, chosen)}
    if hearing is not None:
        options["released"] = hearing.released
    for step, watch in watched_steps(sampler, model, ids, mask, reading=reading, guard=guard, **options):
        is_last, flagged = step.index == sampler.step_count, watch.stopped_at > 0
        for row in np.flatnonzero((stopped_at == 0) & (flagged | is_last)):
            known, committed = (one[row].cpu().numpy() for one in (step.is_committed, step.committed))
            counts[row] = known.sum()
            if model.tokenizer is not None:
                texts[row] = text_with_gaps(model.decode, committed, known, model.eos_token_ids)
        if hearing is None:
            stopped_at = watch.stopped_at
        elif len(due := np.flatnonzero((stopped_at == 0) & flagged & (~hearing.released | is_last))):
            stop = hearing.hear(due.tolist(), [texts[row] for row in due], step.index)
            stopped_at[due[stop]] = max(1, step.index)
    made = [
        {"stopped_at": int(stop), "text": text, "tokens": int(count)} | (hearing.columns(row) if hearing else {})
        for row, (stop, text, count) in enumerate(zip(stopped_at, texts, counts, strict=True))
    ]
    return made, watch.highest
