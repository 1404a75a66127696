"""Rows that hold an autoregressive model against transformers itself.

In: a bench. Out: the tokens of a prompt alone against greedy `generate`, and the states of every named layer against
one clean pass over prompt and response.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from demur.checks.bench import SHARED, Bench
from demur.checks.clean import clean_pass, logit_gap
from demur.checks.result import Row
from demur.checks.traces import Tally, Trace
from demur.models import Model

UNFOLLOWED = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0, "min_new_tokens": 0}
"""Settings of a generation config that change greedy decoding and that demur's sampler does not follow."""
UNFOLLOWED_LISTS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "sequence_bias", "forced_bos_token_id")


def generate_row(bench: Bench) -> Row:
    """Tokens alone against `generate`, greedy."""
    model, plan = bench.model, bench.plan
    measured = f"greedy tokens of each prompt alone against transformers' generate; {plan.steps} steps"
    tally = Tally(bench.tolerance, lambda *_: float("inf"))
    for place, alone in bench.alone(SHARED).items():
        prompt, answer = bench.rows[SHARED][place], alone.answer
        theirs = generated(model, [prompt], plan.steps)[0]
        tally.rows += 1
        if theirs != answer:
            step = _first_difference(answer, theirs)
            tally.differs(f"row {place + 1}", step, _gap(model, prompt, answer, theirs, step))
    asked = unfollowed(model)
    note = f"the generation config asks for {', '.join(asked)}, which plain greedy decoding leaves out" if asked else ""
    return tally.row("generate", measured, note, states=False)


def states_row(bench: Bench) -> Row:
    """Pooled states of every named layer against one clean pass over prompt and response."""
    model = bench.model
    tally = Tally(bench.tolerance, lambda *_: float("inf"))
    worst = np.zeros(len(bench.layers))
    for place in bench.plan.compared:
        prompt, trace = bench.rows[SHARED][place], bench.batch(SHARED)[place]
        states = clean_pass(model, [*prompt, *trace.answer], bench.layers).states[len(prompt) :].numpy()
        truth = expected(states, len(trace.phi))
        tally.add(f"row {place + 1}", prompt, trace, Trace(trace.tokens, trace.committed, truth))
        apart = [bench.tolerance.distance(trace.phi[:, at], truth[:, at]) for at in range(len(worst))]
        worst = np.maximum(worst, apart)
    row = tally.row("states", "pooled states of the batch against one clean pass over prompt and response, alone")
    layers = ", ".join(f"layer {layer} {value:.1e}" for layer, value in zip(bench.layers, worst, strict=True))
    numbers = {"rows": tally.rows, "distance": tally.worst}
    limit = str(bench.tolerance).partition(";")[0]
    value = f"max |Δphi| {layers}"
    return Row(row.name, row.measured, value, limit, row.outcome, row.note, numbers)


def expected(states: np.ndarray, steps: int) -> np.ndarray:
    """phi float32 ``[steps, layers, width]`` by its definition: the mean over the tokens so far, then constant."""
    counts = np.arange(1, len(states) + 1)[:, None, None]
    means = np.cumsum(states.astype(np.float64), axis=0) / counts
    return means[np.minimum(np.arange(steps), len(means) - 1)].astype(np.float32)


def generated(model: Model, rows: Sequence[Sequence[int]], steps: int, *, to_the_end: bool = False) -> list[list[int]]:
    """The response of each row of a left-padded batch, by transformers' greedy `generate`.

    to_the_end : end-of-sequence is never chosen, so that every row has `steps` tokens.
    """
    from transformers import GenerationConfig

    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), model.pad_token_id, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, longest - len(row) :] = torch.tensor(list(row))
        mask[place, longest - len(row) :] = 1
    greedy = GenerationConfig(
        max_new_tokens=steps,
        min_new_tokens=steps if to_the_end else None,
        do_sample=False,
        eos_token_id=model.eos_token_ids or None,
        pad_token_id=model.pad_token_id,
    )
    with _configured(model.network, greedy), torch.no_grad():
        found = model.network.generate(ids.to(model.device), attention_mask=mask.to(model.device))
    return [[int(token) for token in row[longest:]] for row in found]


def unfollowed(model: Model) -> list[str]:
    """Settings of the checkpoint's generation config that would change greedy decoding, as ``name value``."""
    config: Any = getattr(model.network, "generation_config", None)
    found = {name: getattr(config, name, None) for name in (*UNFOLLOWED, *UNFOLLOWED_LISTS)}
    return [f"{name} {value}" for name, value in found.items() if value is not None and value != UNFOLLOWED.get(name)]


@contextmanager
def _configured(network: Any, config: Any) -> Iterator[None]:
    """While open, `generate` takes its defaults from `config` and from nothing of the checkpoint."""
    kept = network.generation_config
    network.generation_config = config
    try:
        yield
    finally:
        network.generation_config = kept


def _first_difference(one: list[int], other: list[int]) -> int:
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _gap(model: Model, prompt: list[int], one: list[int], other: list[int], step: int) -> float:
    if step >= min(len(one), len(other)):
        return float("inf")
    logits = clean_pass(model, [*prompt, *one[:step]], [model.layer_count]).logits
    return logit_gap(logits[-1], (one[step], other[step]))
