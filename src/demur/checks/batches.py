"""Rows about batches: a prompt gives the same tokens and states alone and among others.

In: a bench. Out: a row with and one without a beginning that all prompts share, one in which some generations end
early, and one with a prompt longer than the window of the model's layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from demur.checks.bench import SHARED, Bench, blockwise
from demur.checks.gaps import gap_of
from demur.checks.result import Row
from demur.checks.texts import long_row, rows_of
from demur.checks.traces import Tally, Trace
from demur.samplers import UniformDiffusion

WINDOW_SHARE = 0.4
"""Most of the time there is that the row beyond the window may take."""
BESIDE = (2, 9)
"""Words of the short prompts beside the one that is longer than the window."""


def batch_row(bench: Bench, kind: str) -> Row:
    """All prompts in one batch against each alone."""
    together, rows = bench.batch(kind), bench.rows[kind]
    tally = _tally(bench)
    for place, alone in bench.alone(kind).items():
        tally.add(f"row {place + 1}", rows[place], together[place], alone)
    lengths = [len(row) for row in rows]
    beginning = "with" if kind == SHARED else "without"
    measured = (
        f"alone against a batch of {len(rows)}, {min(lengths)} to {max(lengths)} tokens, "
        f"{beginning} a shared beginning; {bench.sampler.step_count} steps"
    )
    return tally.row(f"batch, {kind}", measured)


def early_row(bench: Bench) -> Row:
    """A batch in which some rows end early against the same rows alone, cut where they end."""
    name, measured = "batch, rows that end", "a batch in which some rows end before the others, against each alone"
    if not bench.model.traits.left_to_right and not blockwise(bench.model):
        return Row(name, measured, outcome="not run", note="every canvas runs to its last step")
    alone = bench.alone(SHARED)
    ending = _ending(list(alone.values()))
    if ending is None:
        return Row(name, measured, outcome="not run", note="all rows say the same tokens, so none ends before another")
    rows = bench.rows[SHARED]
    with bench.ending_at(ending):
        together = bench.traces(rows, len(rows))
        # Where a response of blocks ends is the sampler's business, so that each row is run alone once more.
        again = bench.traces([rows[place] for place in alone], 1) if blockwise(bench.model) else None
    tally = _tally(bench)
    expected = again or [_cut(whole, ending) for whole in alone.values()]
    for place, cut in zip(alone, expected, strict=True):
        tally.add(f"row {place + 1}", rows[place], together[place], cut)
    ended = sum(
        cut.committed[-1].sum() < alone[place].committed[-1].sum() for place, cut in zip(alone, expected, strict=True)
    )
    if not ended:
        return Row(name, measured, outcome="not run", note="no row ends before its last step")
    return tally.row(name, f"{measured}; {ended} of {len(alone)} end early")


def window_row(bench: Bench) -> Row:
    """Short prompts beside one that is longer than the window, against each alone."""
    window, plan = bench.plan.window, bench.plan
    name = "batch, beyond the window"
    measured = f"the same beside a prompt longer than the window of {window} tokens"
    if window is None:
        return Row(name, "the same beside a prompt longer than the window", outcome="not run", note="no layer has one")
    shortest = min(len(row) for row in bench.rows[SHARED])
    if window <= shortest:
        return Row(name, measured, outcome="not run", note="every batch above holds longer prompts only")
    least = window + max(window // 8, 4)
    room = bench.model.context_length
    if room is not None and least + plan.steps > room:
        return Row(name, measured, outcome="not run", note=f"the context of {room} tokens is hardly longer")
    seconds = 5 * plan.speed.of(least)
    if seconds > WINDOW_SHARE * plan.allowed:
        need = seconds / WINDOW_SHARE / 60
        return Row(name, measured, outcome="not run", note=f"takes about {seconds:.0f} s; give {need:.1f} minutes")
    rows = [*rows_of(bench.model, BESIDE, shared=True), long_row(bench.model, least)]
    together = bench.traces(rows, len(rows))
    tally = _tally(bench)
    for row, mine, theirs in zip(rows, together, bench.traces(rows, 1), strict=True):
        tally.add(f"the row of {len(row)} tokens", row, mine, theirs)
    return tally.row(name, f"{measured}: {', '.join(str(len(row)) for row in rows)} tokens in one batch")


def _tally(bench: Bench) -> Tally:
    """Where every token is drawn and rounding is coarse, rows part after step 1 without a fault."""
    drawn = isinstance(bench.sampler, UniformDiffusion)
    return Tally(bench.tolerance, gap_of(bench), first_alone=drawn and bench.tolerance.relative)


def _ending(alone: Sequence[Trace]) -> int | None:
    """A token that some rows say before their last step and others never, None where there is none."""
    answers = [one.answer for one in alone]
    for place in range(max(len(answer) for answer in answers) - 1):
        for answer in answers:
            if place < len(answer) - 1 and any(answer[place] not in other for other in answers):
                return answer[place]
    return None


def _cut(whole: Trace, ending: int) -> Trace:
    """The generation that ends where `ending` is said: nothing is committed after it, and phi stays as it was."""
    if ending not in whole.answer[:-1]:
        return whole
    last = whole.answer.index(ending)
    steps = np.arange(len(whole.phi))
    committed = whole.committed & (np.arange(whole.committed.shape[1]) <= last)
    return Trace(whole.tokens, committed, whole.phi[np.minimum(steps, last)])
