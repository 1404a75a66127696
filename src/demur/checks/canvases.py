"""The row that holds a masked diffusion model against clean passes over its canvas.

In: a bench. Out: at every step that commits something, the states of the committed positions against one pass over
prompt and canvas without padding, and the committed tokens against the best of its logits.
"""

from __future__ import annotations

import numpy as np
import torch

from demur.checks.bench import SHARED, Bench
from demur.checks.clean import clean_pass, logit_gap
from demur.checks.gaps import canvas_before, response_logits
from demur.checks.result import Row
from demur.checks.traces import Trace

NAME = "states"
MOST_ROWS = 3
"""Rows that are compared: each step of each costs a pass."""


def canvas_row(bench: Bench) -> Row:
    """Committed states and tokens of the batch against clean passes over the canvas, alone."""
    measured = "states and tokens of the batch against one clean pass over prompt and canvas a step, alone"
    if bench.model.mask_token_id is None:
        return Row(NAME, measured, outcome="not run", note="the states are those of the network's own generate")
    worst, gap, passes, tokens = 0.0, 0.0, 0, 0
    for place in bench.plan.compared[:: max(1, len(bench.plan.compared) // MOST_ROWS)]:
        prompt, trace = bench.rows[SHARED][place], bench.batch(SHARED)[place]
        for step in _committing(trace):
            apart, gaps = _at(bench, prompt, trace, step)
            worst, gap = max(worst, apart), max([gap, *gaps])
            passes, tokens = passes + 1, tokens + len(gaps)
    if not passes:
        return Row(NAME, measured, outcome="not run", note="the model predicts masks only, so nothing is committed")
    limits = bench.tolerance
    failed = not worst <= limits.states or gap > limits.tie
    ties = "all the best of its logits" if gap == 0 else f"within {gap:.1e} of the best of its logits"
    value = f"max |Δphi| {worst:.1e} over {passes} passes; {tokens} committed tokens, {ties}"
    numbers = {"distance": worst, "passes": passes, "tokens": tokens, "gap": gap}
    return Row(NAME, measured, value, str(limits), "failed" if failed else "ok", "", numbers)


def _committing(trace: Trace) -> list[int]:
    """The steps (from 0) at which something is committed."""
    counts = np.diff(trace.committed.sum(axis=1), prepend=0)
    return [int(step) for step in np.flatnonzero(counts)]


def _at(bench: Bench, prompt: list[int], trace: Trace, step: int) -> tuple[float, list[float]]:
    """How far phi of a step is from the truth, and how far each token committed there is from the best."""
    model = bench.model
    canvas = canvas_before(model, trace, step)
    read = bench.sampler.read_order([token == model.mask_token_id for token in canvas])
    order = [*range(len(prompt)), *(len(prompt) + place for place in read)] if read != sorted(read) else None
    behind = [token for token in [getattr(bench.sampler, "end_token", None)] if token is not None]
    ids = [*prompt, *canvas, *behind]
    sight = bench.sampler.sight(len(prompt), len(ids))
    found = clean_pass(model, ids, bench.layers, kept=len(canvas) + len(behind) + 1, order=order, sight=sight)
    committed = trace.committed[step]
    before = trace.committed[step - 1] if step else np.zeros_like(committed)
    pooled = bench.sampler.has_state(len(prompt), committed, before)
    answers = found.states[len(prompt) : len(prompt) + len(canvas)].numpy()
    truth = answers[pooled].mean(axis=0) if pooled.any() else trace.phi[step]
    apart = bench.tolerance.distance(trace.phi[step], truth)
    new = committed & (np.array(canvas) == model.mask_token_id)
    logits = response_logits(model, found.logits[: len(canvas) + 1])
    return apart, [_token_gap(logits[place], int(trace.tokens[step][place])) for place in np.flatnonzero(new)]


def _token_gap(logits: torch.Tensor, token: int) -> float:
    return logit_gap(logits, (token,))
